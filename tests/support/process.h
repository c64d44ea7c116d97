// A program run as its user runs it: arguments in, output and exit code out.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "engine/fd.h"

namespace nibble::testing {

// Both outputs go into one pipe. Killed and reaped at the latest by the destructor.
class Process {
 public:
  explicit Process(std::vector<std::string> command) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) ADD_FAILURE() << "no pipe";
    output_ = Fd(ends[0]);
    const Fd input(ends[1]);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, input.get(), 1);
    posix_spawn_file_actions_adddup2(&actions, input.get(), 2);
    std::vector<char*> argv;
    for (std::string& word : command) argv.push_back(word.data());
    argv.push_back(nullptr);
    if (posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) != 0) {
      ADD_FAILURE() << "cannot run " << command[0];
      pid_ = -1;
    }
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Process() {
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    Wait();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  // Everything written so far, once it contains `text`; reads on until then or until the end.
  const std::string& ReadUntil(const std::string& text) {
    while (seen_.find(text) == std::string::npos && ReadMore()) {
    }
    return seen_;
  }
  const std::string& ReadAll() {
    while (ReadMore()) {
    }
    return seen_;
  }
  void Signal(int number) const { kill(pid_, number); }
  // The exit code, or minus the signal that ended it.
  int Wait() {
    ReadAll();
    int status = 0;
    if (pid_ < 0 || waitpid(std::exchange(pid_, -1), &status, 0) < 0) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  bool ReadMore() {
    char buffer[4096];
    const ssize_t count = read(output_.get(), buffer, sizeof(buffer));
    if (count > 0) seen_.append(buffer, static_cast<size_t>(count));
    return count > 0;
  }

  Fd output_;
  pid_t pid_ = -1;
  std::string seen_;
};

struct Outcome {
  int code = -1;
  std::string output;
};

// Runs `nibble` with these arguments to its end.
inline Outcome Nibble(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), NIBBLE_BINARY_DIR "/nibble");
  Process process(std::move(arguments));
  Outcome outcome;
  outcome.code = process.Wait();
  outcome.output = process.ReadAll();
  return outcome;
}

}  // namespace nibble::testing
