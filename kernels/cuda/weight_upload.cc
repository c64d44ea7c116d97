// Pieces go round; a matrix crosses in slices of rows.
#include "kernels/cuda/weight_upload.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/dense_layout.h"
#include "kernels/cuda/four_bit_pack.h"
#include "kernels/pack_checks.h"

namespace nibble::cuda {
namespace {

constexpr int64_t kCodebookBytes = 16 * sizeof(float);
constexpr int64_t kMapBytes = 256 * sizeof(float);

absl::Status TooWide(const WeightSpec& spec, int64_t most) {
  return absl::UnimplementedError(absl::StrCat("pack: got ", Name(spec.format), " [", spec.n, ",",
                                               spec.k, "], want at most ", most,
                                               " columns on a GPU"));
}

template <typename T>
int64_t BytesOf(const std::vector<T>& values) {
  return static_cast<int64_t>(values.size() * sizeof(T));
}

// Panels of this many bytes each that a piece holds.
int64_t PanelsInPiece(int64_t panel_bytes) { return WeightUpload::kPieceBytes / panel_bytes; }

}  // namespace

class WeightUpload::Turn {
 public:
  explicit Turn(WeightUpload* upload) : piece_(upload->Next()), lock_(piece_->mutex) {
    status_ = UseDevice(upload->ordinal_);
  }
  Piece* piece() const { return piece_; }
  const absl::Status& status() const { return status_; }

 private:
  Piece* const piece_;
  const std::lock_guard<std::mutex> lock_;
  absl::Status status_;
};

WeightUpload::Piece* WeightUpload::Next() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return &pieces_[next_++ % kNumPieces];
}

absl::StatusOr<std::unique_ptr<WeightUpload>> WeightUpload::Make(int ordinal, char* device) {
  std::unique_ptr<WeightUpload> upload(new WeightUpload(ordinal));
  absl::Status status;
  for (Piece& piece : upload->pieces_) {
    piece.stream = Own<OwnedStream>(MakeStream(), &status);
    if (!status.ok()) return status;
    piece.host = Own<OwnedHost>(MallocHost(kPieceBytes), &status);
    if (!status.ok()) return status;
    piece.device = device;
    device += kPieceBytes;
  }
  return upload;
}

template <typename Append>
absl::Status WeightUpload::Run(Piece* piece, const Append& append) {
  piece->tape.Clear();
  append(&piece->tape);
  const absl::Status played = piece->tape.Play(piece->stream.get());
  // Also after a failure: what was issued still reads the piece.
  const absl::Status done = Synchronize(piece->stream.get());
  return played.ok() ? done : played;
}

absl::Status WeightUpload::Send(Piece* piece, void* device, const void* host, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += kPieceBytes) {
    const int64_t size = std::min(kPieceBytes, bytes - at);
    std::memcpy(piece->host.get(), static_cast<const char*>(host) + at, static_cast<size_t>(size));
    absl::Status status = Run(piece, [&](Tape* tape) {
      tape->AddCopy(static_cast<char*>(device) + at, piece->host.get(), size);
    });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status WeightUpload::Copy(void* device, const void* host, int64_t bytes) {
  const Turn turn(this);
  if (!turn.status().ok()) return turn.status();
  return Send(turn.piece(), device, host, bytes);
}

absl::Status WeightUpload::Zero(void* device, int64_t bytes) {
  const Turn turn(this);
  if (!turn.status().ok()) return turn.status();
  Stream* const stream = turn.piece()->stream.get();
  const absl::Status filled = Fill(device, 0, bytes, stream);
  const absl::Status done = Synchronize(stream);
  return filled.ok() ? done : filled;
}

absl::Status WeightUpload::SendCodes(Piece* piece, const FourBitMatrix& matrix,
                                     const Weight& weight) {
  const WeightSpec& spec = weight.spec;
  const int64_t panels = NumPanels(spec.n), step = PanelsInPiece(CodesOfPanels(spec, 0, 1).bytes);
  for (int64_t first = 0; first < panels; first += step) {
    const int64_t count = std::min(step, panels - first);
    const FourBitSlice slice = CodesOfPanels(spec, first, count);
    std::memcpy(piece->host.get(), matrix.codes.data() + slice.begin,
                static_cast<size_t>(slice.bytes));
    absl::Status status = Run(piece, [&](Tape* tape) {
      tape->AddCopy(piece->device, piece->host.get(), slice.bytes);
      PackFourBitCodes(tape, weight, first, count, piece->device);
    });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status WeightUpload::SendScales(Piece* piece, const FourBitMatrix& matrix,
                                      const Weight& weight) {
  const WeightSpec& spec = weight.spec;
  const char* const scales = spec.double_quant
                                 ? reinterpret_cast<const char*>(matrix.absmax_codes.data())
                                 : reinterpret_cast<const char*>(matrix.absmax.data());
  if (!GroupsInRows(spec)) {
    const int64_t bytes = spec.double_quant ? BytesOf(matrix.absmax_codes) : BytesOf(matrix.absmax);
    return Send(piece, weight.scales, scales, bytes);
  }
  const int64_t panels = NumPanels(spec.n), step = PanelsInPiece(ScalesOfPanels(spec, 0, 1).bytes);
  for (int64_t first = 0; first < panels; first += step) {
    const int64_t count = std::min(step, panels - first);
    const FourBitSlice slice = ScalesOfPanels(spec, first, count);
    std::memcpy(piece->host.get(), scales + slice.begin, static_cast<size_t>(slice.bytes));
    absl::Status status = Run(piece, [&](Tape* tape) {
      tape->AddCopy(piece->device, piece->host.get(), slice.bytes);
      PackFourBitScales(tape, weight, first, count, piece->device);
    });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status WeightUpload::PackFourBit(const FourBitMatrix& matrix, Weight* weight) {
  const WeightSpec& spec = weight->spec;
  if (absl::Status status = CheckPackFourBit(matrix, spec); !status.ok()) return status;
  constexpr int64_t kMostColumns = kPieceBytes / 8;  // a panel's codes take 8 bytes a column
  if (spec.k > kMostColumns) return TooWide(spec, kMostColumns);
  const Turn turn(this);
  Piece* const piece = turn.piece();
  absl::Status status = turn.status();
  const auto then = [&](const auto& send) {
    if (status.ok()) status = send();
  };
  const auto send_to = [&](void* device, int64_t at, const void* host, int64_t bytes) {
    then([&] { return Send(piece, static_cast<char*>(device) + at, host, bytes); });
  };
  then([&] { return SendCodes(piece, matrix, *weight); });
  then([&] { return SendScales(piece, matrix, *weight); });
  if (spec.own_tables) send_to(weight->tables, 0, matrix.codebook.data(), kCodebookBytes);
  if (!spec.double_quant) return status;
  const int64_t nested_bytes = BytesOf(matrix.nested_absmax);
  send_to(weight->nested, 0, matrix.nested_absmax.data(), nested_bytes);
  send_to(weight->nested, nested_bytes, &matrix.nested_offset, sizeof(float));
  if (spec.own_tables) {
    send_to(weight->tables, kCodebookBytes, matrix.nested_map.data(), kMapBytes);
  }
  return status;
}

absl::Status WeightUpload::PackInt8(const Int8Matrix& matrix, Weight* weight) {
  const WeightSpec& spec = weight->spec;
  if (absl::Status status = CheckPackInt8(matrix, spec); !status.ok()) return status;
  const int64_t stride = Int8Stride(spec.k), step = kPieceBytes / stride;
  static_assert(Int8Stride(kMaxInt8Columns) <= kPieceBytes);
  const Turn turn(this);
  Piece* const piece = turn.piece();
  absl::Status status = turn.status();
  for (int64_t first = 0; first < spec.n && status.ok(); first += step) {
    const int64_t count = std::min(step, spec.n - first);
    std::memset(piece->host.get(), 0, static_cast<size_t>(count * stride));
    for (int64_t row = 0; row < count; ++row) {
      std::memcpy(piece->host.get() + row * stride, matrix.codes.data() + (first + row) * spec.k,
                  static_cast<size_t>(spec.k));
    }
    status = Run(piece, [&](Tape* tape) {
      tape->AddCopy(static_cast<char*>(weight->codes) + first * stride, piece->host.get(),
                    count * stride);
    });
  }
  if (!status.ok()) return status;
  return Send(piece, weight->scales, matrix.absmax.data(), BytesOf(matrix.absmax));
}

absl::Status WeightUpload::Pack16(int64_t first_row, int64_t count, const uint16_t* values,
                                  Weight* weight) {
  const WeightSpec& spec = weight->spec;
  if (absl::Status status = CheckPack16(first_row, count, spec); !status.ok()) return status;
  const int64_t row_bytes = spec.k * static_cast<int64_t>(sizeof(uint16_t));
  return Copy(static_cast<char*>(weight->codes) + first_row * row_bytes, values, count * row_bytes);
}

}  // namespace nibble::cuda
