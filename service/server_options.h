// Every setting of `nibble serve` as a field with its default: what the command line fills and the
// server obeys. Plain data.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "engine/engine.h"
#include "service/observer.h"

namespace nibble {

struct TlsFiles {
  std::string cert;       // PEM chain; empty: no TLS
  std::string key;        // PEM private key
  std::string client_ca;  // PEM roots; not empty: every client must show a certificate of theirs
};

struct ServerOptions {
  // --- where ---
  std::string listen = "127.0.0.1:50051";  // HOST:PORT, [IPv6]:PORT; port 0: any
  std::string health_listen;  // a second, plaintext listener with the health service only; "": none
  bool insecure = false;      // listen beyond loopback without TLS
  TlsFiles tls;
  std::string auth_token_file;     // "" : no authorization; see service/auth.h
  std::optional<bool> reflection;  // absent: on loopback only

  // --- what ---
  EngineOptions engine;
  std::vector<LoadRequest> models;  // loaded by Server::LoadModels, in this order
  std::string model_root;  // the directory that LoadModel may load from; "": loading by RPC is off
  int encode_threads = 2;  // encode prompts, render templates, answer small calls; >= 1
  int load_threads = 2;    // models loaded or unloaded by RPC at the same time; >= 1
  int64_t max_queued_calls = 1024;  // waiting for an encode thread; over: RESOURCE_EXHAUSTED

  // --- limits of the wire ---
  int64_t max_receive_message_bytes = 16 << 20;
  int32_t max_metadata_bytes = 16 << 10;
  int32_t max_connections = 1024;
  int32_t max_concurrent_streams = 1024;  // of one connection
  absl::Duration keepalive_time = absl::Seconds(20);
  absl::Duration keepalive_timeout = absl::Seconds(5);
  absl::Duration handshake_timeout = absl::Seconds(10);
  absl::Duration max_connection_age = absl::InfiniteDuration();
  absl::Duration max_connection_age_grace = absl::InfiniteDuration();

  // --- time ---
  absl::Duration drain_timeout = absl::Seconds(25);
  absl::Duration send_stall_timeout = absl::Seconds(30);  // then ABORTED, SLOW_READER
  int64_t max_stream_bytes = 4 << 20;  // pending in one stream; more is a slow reader as well
  absl::Duration watchdog_timeout = absl::Seconds(10);  // no step for so long: NOT_SERVING

  Observer observer;
  // Progress of the models that LoadModels loads, on its thread; may be empty.
  std::function<void(const std::string& model, const LoadProgress&)> on_load_progress;
};

}  // namespace nibble
