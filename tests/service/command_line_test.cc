// `nibble` as people run it: every command against a server in a process of its own.
#include <gmock/gmock.h>

#include "absl/strings/str_cat.h"
#include "tests/support/process.h"
#include "tests/support/running_server.h"
#include "tests/support/temp_dir.h"

namespace nibble {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::ModelPath;
using testing::Nibble;
using testing::Outcome;
using testing::Process;

// `nibble serve` with a writer and an embedder.
class CommandLine : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    server_ =
        new Process({NIBBLE_BINARY_DIR "/nibble", "serve", "--listen", "127.0.0.1:0", "--metrics",
                     "", "--threads", "1", "--model", absl::StrCat("chat=", ModelPath("tiny_chat")),
                     "--model", absl::StrCat("bert=", ModelPath("tiny_bert"))});
    const std::string& log = server_->ReadUntil("\"ready\"");
    const std::string listening = "\"event\":\"listening\",\"message\":\"";
    const size_t at = log.find(listening);
    ASSERT_NE(at, std::string::npos) << log;
    const size_t begin = at + listening.size();
    target_ = log.substr(begin, log.find('"', begin) - begin);
  }
  static void TearDownTestSuite() {
    server_->Signal(SIGTERM);
    EXPECT_EQ(server_->Wait(), 0) << server_->ReadAll();
    EXPECT_THAT(server_->ReadAll(), AllOf(HasSubstr("\"draining\""), HasSubstr("\"stopped\"")));
    EXPECT_EQ(server_->ReadAll().find("Once upon"), std::string::npos) << "a prompt in the log";
    delete std::exchange(server_, nullptr);
  }
  static Outcome Ask(std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), {"--target", target_});
    return Nibble(std::move(arguments));
  }

 private:
  static Process* server_;
  static std::string target_;
};
Process* CommandLine::server_ = nullptr;
std::string CommandLine::target_;

TEST_F(CommandLine, GenerateStreamsAnAnswerTheSameEveryTime) {
  const std::vector<std::string> command = {
      "generate", "--prompt", "Once upon a time", "--max-tokens", "12", "--temperature", "0"};
  const Outcome first = Ask(command);
  EXPECT_EQ(first.code, 0) << first.output;
  EXPECT_GT(first.output.size(), 10u);
  EXPECT_EQ(Ask(command).output, first.output);
}

TEST_F(CommandLine, EmbedGivesAVectorForEachText) {
  const Outcome outcome = Ask({"embed", "--prompt", "a cat", "--prompt", "a dog"});
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_FALSE(outcome.output.empty());
}

TEST_F(CommandLine, HealthTellsByItsExitCode) {
  EXPECT_EQ(Ask({"health"}).code, 0);
  const Outcome unknown = Ask({"health", "--service", "nobody"});
  EXPECT_NE(unknown.code, 0) << unknown.output;
  const Outcome nobody = Nibble({"health", "--target", "127.0.0.1:1", "--timeout", "2s"});
  EXPECT_EQ(nobody.code, 1) << nobody.output;
}

TEST_F(CommandLine, BenchServeMeasuresTheServer) {
  const Outcome outcome = Ask({"bench", "serve", "--model", "chat", "--streams", "2", "--requests",
                               "4", "--prompt-tokens", "8", "--max-tokens", "4"});
  EXPECT_EQ(outcome.code, 0) << outcome.output;
}

TEST_F(CommandLine, AServersRefusalIsTheCommandsFailure) {
  const Outcome outcome = Ask({"generate", "--model", "nobody", "--prompt", "x"});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("nibble generate"), HasSubstr("NOT_FOUND")));
}

TEST(Commands, InspectShowsTensorsAndMemoryWithoutLoading) {
  const Outcome outcome = Nibble({"inspect", ModelPath("tiny_chat")});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("memory plan"), HasSubstr("kv_cache"),
                                    HasSubstr("LlamaForCausalLM")));
  const Outcome nothing = Nibble({"inspect", ModelPath("nothing")});
  EXPECT_EQ(nothing.code, 1);
  EXPECT_THAT(nothing.output, HasSubstr("NOT_FOUND"));
}

TEST(Commands, InspectTellsTheHeadsForm) {
  const Outcome usual = Nibble({"inspect", ModelPath("tiny_chat")});
  EXPECT_THAT(usual.output, HasSubstr("double-quantized; head bf16; kv"));
  const Outcome outcome = Nibble({"inspect", ModelPath("tiny_chat"), "--weights", "int8", "--head",
                                  "nf4", "--group-size", "32"});
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.output,
              HasSubstr("memory plan (int8; head nf4 in groups of 32, double-quantized; kv"));
  const Outcome wrong = Nibble({"inspect", ModelPath("tiny_chat"), "--head", "fp4"});
  EXPECT_EQ(wrong.code, 2);
  EXPECT_THAT(wrong.output, HasSubstr("head=fp4: want nf4, int8 or bf16"));
}

TEST(Commands, BenchModelMeasuresInProcess) {
  const Outcome outcome =
      Nibble({"bench", "model", ModelPath("stories260k"), "--threads", "1", "--head", "int8"});
  EXPECT_EQ(outcome.code, 0) << outcome.output;
  EXPECT_THAT(outcome.output, ::testing::ContainsRegex("head +int8"));
}

TEST(Commands, QuantizeWritesACheckpointOnce) {
  const testing::TempDir directory;
  const std::string out = directory.File("model-bnb-4bit");
  const Outcome written =
      Nibble({"quantize", ModelPath("tiny_chat"), out, "--type", "fp4", "--group-size", "128"});
  EXPECT_EQ(written.code, 0) << written.output;
  EXPECT_THAT(written.output, HasSubstr("14 matrices in fp4"));
  const Outcome seen = Nibble({"inspect", out});
  EXPECT_EQ(seen.code, 0) << seen.output;
  EXPECT_THAT(seen.output, HasSubstr("memory plan (fp4 in groups of 128, double-quantized"));
  const Outcome again = Nibble({"quantize", ModelPath("tiny_chat"), out});
  EXPECT_EQ(again.code, 1);
  EXPECT_THAT(again.output,
              AllOf(HasSubstr("ALREADY_EXISTS"), HasSubstr("nothing is overwritten")));
  EXPECT_EQ(
      Nibble({"quantize", ModelPath("tiny_chat"), directory.File("x"), "--type", "gptq"}).code, 2);
  const Outcome conflict = Nibble({"inspect", out, "--weights", "nf4"});
  EXPECT_EQ(conflict.code, 1);
  EXPECT_THAT(conflict.output, HasSubstr("quantized already, to fp4"));
}

TEST(Commands, WrongUsageIsTwoAndSaysWhereToRead) {
  for (const std::vector<std::string>& wrong : std::vector<std::vector<std::string>>{
           {}, {"frobnicate"}, {"generate", "--bogus"}, {"serve", "--listen"}, {"inspect"}}) {
    const Outcome outcome = Nibble(wrong);
    EXPECT_EQ(outcome.code, 2) << outcome.output;
    EXPECT_THAT(outcome.output, HasSubstr("--help"));
  }
}

TEST(Commands, HelpIsNoError) {
  EXPECT_EQ(Nibble({"--help"}).code, 0);
  for (const char* command :
       {"serve", "generate", "embed", "health", "inspect", "quantize", "bench"}) {
    const Outcome outcome = Nibble({command, "--help"});
    EXPECT_EQ(outcome.code, 0) << command;
    EXPECT_THAT(outcome.output, HasSubstr(absl::StrCat("nibble ", command)));
  }
}

TEST(Commands, AModelThatCannotBeLoadedEndsTheServer) {
  const Outcome outcome = Nibble({"serve", "--listen", "127.0.0.1:0", "--metrics", "", "--model",
                                  absl::StrCat("x=", ModelPath("nothing"))});
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("NOT_FOUND"));
}

}  // namespace
}  // namespace nibble
