// A server whose GPU is lost says so, serves nothing any more, and ends with an error.
#include <gtest/gtest.h>

#include "engine/status.h"
#include "tests/support/cuda_emulator/fake_runtime.h"
#include "tests/support/running_server.h"

namespace nibble {
namespace {

namespace fake = cuda::fake;
using testing::RunningServer;

void OnGpu(ServerOptions* options) {
  options->engine.backend.device = "cuda:0";
  options->models.pop_back();
}

TEST(CudaServer, AnswersAndTellsItsDevice) {
  fake::Reset();
  RunningServer server(OnGpu);
  EXPECT_TRUE(server.Serves());
  EXPECT_EQ(server->engine().device(), "cuda:0");
  EXPECT_EQ(server->engine().GetModel("chat")->compute, "bf16");
}

TEST(CudaServer, EndsWithAnErrorWhenItsDeviceIsLost) {
  fake::Reset();
  {
    RunningServer server([](ServerOptions* options) {
      OnGpu(options);
      options->watchdog_timeout = absl::Milliseconds(400);
    });
    fake::FailCall({.call = fake::Call::kRun, .nth = 3, .sticky = true});
    v1::GenerateRequest request;
    request.set_model("chat");
    request.set_text("Once");
    request.mutable_stopping()->set_max_tokens(4);
    EXPECT_EQ(server.Generate(request).status.error_code(), grpc::StatusCode::INTERNAL);
    EXPECT_TRUE(server.journal().AwaitEvent(ServerEvent::Kind::kDeviceLost));
    EXPECT_TRUE(server.journal().AwaitEvent(ServerEvent::Kind::kDraining));
    const absl::Status ended = server->Wait();
    EXPECT_EQ(ended.code(), absl::StatusCode::kInternal);
    EXPECT_EQ(ReasonOf(ended), "DEVICE_LOST");
  }
  fake::Reset();
}

}  // namespace
}  // namespace nibble
