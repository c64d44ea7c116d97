// The accept loop, on a thread of its own. gRPC 1.51's own listener dies for ever at the first
// "too many open files"; this one backs off and recovers, and caps the connections.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <map>
#include <thread>

#include "absl/status/status.h"
#include "service/listener.h"

namespace nibble {

class Acceptor {
 public:
  struct Hooks {
    // Takes over a connected, non-blocking socket.
    std::function<void(int listener_fd, int fd)> on_connection;
    // accept4 failed for want of something (file descriptors, memory); told once per streak.
    std::function<void(int error)> on_failure;
  };

  // Starts accepting. max_connections: open at once; further ones are closed as they come.
  Acceptor(Listener listener, int max_connections, Hooks hooks);
  ~Acceptor();  // stops accepting; connections handed over stay
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  const Listener& listener() const { return listener_; }
  int64_t refused() const { return refused_; }  // over max_connections, since the start

 private:
  void Run();
  bool AcceptOne();  // false: for want of something of ours, so that a pause is due
  void HandOver(Fd connection);
  bool HasRoom();

  const Listener listener_;
  const int max_connections_;
  const Hooks hooks_;
  Fd wake_;  // eventfd: readable when the loop shall end
  std::atomic<int64_t> refused_ = 0;
  // Sockets handed over: descriptor → inode. gRPC closes them without telling; a descriptor whose
  // inode has changed is another file by now. Accept thread only.
  std::map<int, ino_t> open_;
  bool failing_ = false;
  std::thread thread_;
};

}  // namespace nibble
