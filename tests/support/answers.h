// What a Generate stream gave, put together by index; what an error carried; a request that takes
// a while.
#pragma once

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "nibble/v1/inference.pb.h"

namespace nibble::testing {

// What one Generate call gave.
struct Answers {
  struct Answer {
    std::string text;
    std::vector<int32_t> ids;
    v1::GenerateResponse last;  // the one with a finish_reason
    int num_ends = 0;
  };
  grpc::Status status;
  std::map<int, Answer> by_index;
  int num_messages = 0;

  void Add(const v1::GenerateResponse& message) {
    Answer& answer = by_index[message.index()];
    EXPECT_EQ(answer.num_ends, 0) << "a piece after the last one";
    answer.text += message.text();
    answer.ids.insert(answer.ids.end(), message.token_ids().begin(), message.token_ids().end());
    if (message.finish_reason() != v1::FINISH_REASON_UNSPECIFIED) {
      answer.last = message;
      ++answer.num_ends;
    }
    ++num_messages;
  }
};

// ErrorInfo.reason and the field of BadRequest, "" when there is none.
struct ErrorDetails {
  std::string reason, field;
  bool has_retry = false;
};

inline ErrorDetails DetailsOf(const grpc::Status& status) {
  ErrorDetails result;
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  for (const auto& any : details.details()) {
    google::rpc::ErrorInfo info;
    google::rpc::BadRequest bad;
    google::rpc::RetryInfo retry;
    if (any.UnpackTo(&info)) {
      EXPECT_EQ(info.domain(), "nibble");
      result.reason = info.reason();
    } else if (any.UnpackTo(&bad)) {
      result.field = bad.field_violations(0).field();
    } else if (any.UnpackTo(&retry)) {
      result.has_retry = true;
    }
  }
  return result;
}

// A request that runs long enough to be interrupted: `n` answers up to the end of the context.
inline v1::GenerateRequest LongRequest(const std::string& model = "chat", int n = 8) {
  v1::GenerateRequest request;
  request.set_model(model);
  request.mutable_token_ids()->add_ids(5);
  request.mutable_sampling()->set_n(n);
  request.mutable_sampling()->set_temperature(1);
  request.mutable_stopping()->set_ignore_eos(true);
  return request;
}

}  // namespace nibble::testing
