// The way of a model's weights to the device, while the engine computes: through page-locked pieces
// on streams of their own, permuted on the device. Allocates nothing after Make.
// Thread-safe: several loading threads at once, each on a piece of its own while there are some.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/cuda/owned.h"
#include "kernels/cuda/tape.h"
#include "kernels/four_bit.h"
#include "kernels/int8.h"
#include "kernels/weight.h"

namespace nibble::cuda {

// Every function waits until the device has what it was given. Errors: INTERNAL of the device; the
// checks of kernels/pack_checks.h; UNIMPLEMENTED for rows longer than a piece.
class WeightUpload {
 public:
  static constexpr int kNumPieces = 4;
  static constexpr int64_t kPieceBytes = int64_t{4} << 20;
  static constexpr int64_t kDeviceBytes = kNumPieces * kPieceBytes;

  // `device`: kDeviceBytes of device memory, 256-aligned, which outlive this.
  // Errors: RESOURCE_EXHAUSTED, INTERNAL.
  static absl::StatusOr<std::unique_ptr<WeightUpload>> Make(int ordinal, char* device);

  absl::Status Copy(void* device, const void* host, int64_t bytes);
  absl::Status Zero(void* device, int64_t bytes);
  absl::Status PackFourBit(const FourBitMatrix& matrix, Weight* weight);
  absl::Status PackInt8(const Int8Matrix& matrix, Weight* weight);
  absl::Status Pack16(int64_t first_row, int64_t count, const uint16_t* values, Weight* weight);

 private:
  struct Piece {
    OwnedStream stream;
    OwnedHost host;
    char* device = nullptr;
    Tape tape;
    std::mutex mutex;
  };
  // A piece that is nobody else's while this lives, on a thread that uses the device.
  class Turn;

  explicit WeightUpload(int ordinal) : ordinal_(ordinal) {}
  Piece* Next();

  // What `append` puts on the tape, done when this returns.
  template <typename Append>
  static absl::Status Run(Piece* piece, const Append& append);
  static absl::Status Send(Piece* piece, void* device, const void* host, int64_t bytes);
  // The codes, or the scales, of a 4-bit matrix, panels by panels.
  static absl::Status SendCodes(Piece* piece, const FourBitMatrix& matrix, const Weight& weight);
  static absl::Status SendScales(Piece* piece, const FourBitMatrix& matrix, const Weight& weight);

  const int ordinal_;
  std::array<Piece, kNumPieces> pieces_;
  std::mutex mutex_;
  size_t next_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace nibble::cuda
