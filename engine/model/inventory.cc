// Looks tensors up, checks their shapes and packs them into the two arenas.
#include "engine/model/inventory.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/model/model.h"
#include "engine/status.h"

namespace nibble {
namespace {

constexpr int64_t kCodesAlignment = 64;
constexpr int64_t kScalesAlignment = 16;
constexpr int64_t kSmallAlignment = 4;

// Places one array after the other in an arena.
class Cursor {
 public:
  int64_t Take(int64_t bytes, int64_t alignment) {
    const int64_t begin = (end_ + alignment - 1) / alignment * alignment;
    padding_ += begin - end_;
    end_ = begin + bytes;
    return begin;
  }
  int64_t end() const { return end_; }
  int64_t padding() const { return padding_; }

 private:
  int64_t end_ = 0;
  int64_t padding_ = 0;
};

// Small vectors keep the file's type; blocks of GGUF become fp32.
DType VectorType(TensorType type) {
  switch (type) {
    case TensorType::kF16:
      return DType::kF16;
    case TensorType::kBF16:
      return DType::kBF16;
    default:
      return DType::kF32;
  }
}

// The file's own 16-bit type; otherwise fp16 until a value is seen that it cannot hold.
WeightSpec SixteenBits(const TensorRef& tensor) {
  WeightSpec spec;
  spec.format = tensor.type == TensorType::kBF16 ? WeightFormat::kBf16 : WeightFormat::kF16;
  return spec;
}

// The form of a matrix that is quantized already: its own.
WeightSpec StoredForm(const TensorRef& tensor, float int8_threshold) {
  const QuantizedTensor& quantized = *tensor.quantized;
  WeightSpec spec;
  spec.format = FormatOf(tensor.type);
  spec.outlier_threshold = int8_threshold;
  if (!IsFourBit(spec.format)) return spec;
  spec.group_size = quantized.group_size;
  spec.double_quant = quantized.double_quant;
  FourBitMatrix tables;
  tables.format = spec.format;
  tables.double_quant = quantized.double_quant;
  tables.codebook = quantized.codebook;
  tables.nested_map = quantized.nested_map;
  spec.own_tables = NeedsOwnTables(tables);
  return spec;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ","), "]");
}

}  // namespace

const TensorRef* FirstQuantized(const Checkpoint& checkpoint) {
  for (const TensorRef& tensor : checkpoint.tensors()) {
    if (IsBitsAndBytes(tensor.type)) return &tensor;
  }
  return nullptr;
}

Inventory::Inventory(const Checkpoint& checkpoint, const ModelOptions& options)
    : checkpoint_(&checkpoint) {
  matrix_form_.format = options.weights.value_or(WeightFormat::kNf4);
  matrix_form_.group_size = options.group_size;
  matrix_form_.double_quant = options.double_quant;
  head_form_ = matrix_form_;
  head_form_.format = options.head;
  head_form_.outlier_threshold = Int8Threshold();
  skip_modules_ = options.skip_modules;
  file_is_quantized_ = FirstQuantized(checkpoint) != nullptr;
}

const TensorRef* Inventory::Find(const std::string& name, std::initializer_list<int64_t> shape) {
  if (!status_.ok()) return nullptr;
  const TensorRef* tensor = checkpoint_->Find(name);
  if (tensor == nullptr) {
    status_ =
        Error(absl::StatusCode::kFailedPrecondition, "MISSING_TENSOR",
              absl::StrCat(checkpoint_->path(), ": tensor \"", name, "\" is missing; architecture ",
                           checkpoint_->config().architecture_name, " needs it"));
    return nullptr;
  }
  const std::vector<int64_t> wanted(shape);
  if (tensor->shape != wanted) {
    status_ = Error(
        absl::StatusCode::kFailedPrecondition, "SHAPE_MISMATCH",
        absl::StrCat(tensor->file, ": tensor \"", name, "\" has shape ", ShapeText(tensor->shape),
                     ", ", checkpoint_->config_source(), " says ", ShapeText(wanted)));
    return nullptr;
  }
  return tensor;
}

const Weight* Inventory::Add(const TensorRef* tensor, MemoryKind kind, const WeightSpec& spec) {
  PlacedMatrix& matrix = matrices_.emplace_back();
  matrix.tensor = tensor;
  matrix.kind = kind;
  matrix.weight.spec = spec;
  matrix.weight.spec.n = tensor->rows();
  matrix.weight.spec.k = tensor->cols();
  return &matrix.weight;
}

bool Inventory::IsSkipped(const TensorRef& tensor) const {
  return std::any_of(skip_modules_.begin(), skip_modules_.end(),
                     [&](const std::string& module) { return IsPartOf(module, tensor.name); });
}

float Inventory::Int8Threshold() const {
  return checkpoint_->config().quantization.value_or(QuantizationConfig{}).int8_threshold;
}

WeightSpec Inventory::FormOf(const TensorRef& tensor) const {
  if (IsBitsAndBytes(tensor.type)) return StoredForm(tensor, Int8Threshold());
  // In a file that is quantized: skipped by whoever did that.
  return file_is_quantized_ || IsSkipped(tensor) ? SixteenBits(tensor) : matrix_form_;
}

WeightSpec Inventory::HeadFormOf(const TensorRef& tensor) const {
  return IsSixteenBit(head_form_.format) || IsSkipped(tensor) ? SixteenBits(tensor) : head_form_;
}

const Weight* Inventory::Matrix(const std::string& name, int64_t n, int64_t k) {
  const TensorRef* tensor = Find(name, {n, k});
  return tensor == nullptr ? nullptr : Add(tensor, MemoryKind::kWeights, FormOf(*tensor));
}

const Weight* Inventory::Head(const std::string& name, int64_t n, int64_t k) {
  const TensorRef* tensor = Find(name, {n, k});
  if (tensor == nullptr) return nullptr;
  if (!IsBitsAndBytes(tensor->type)) return Add(tensor, MemoryKind::kWeights, HeadFormOf(*tensor));
  const WeightSpec stored = StoredForm(*tensor, Int8Threshold());
  if (!IsSixteenBit(head_form_.format) && head_form_.format != stored.format) {
    status_ = Error(
        absl::StatusCode::kInvalidArgument, "OPTION_OUT_OF_RANGE",
        absl::StrCat("head is ", Name(head_form_.format), ", ", tensor->file, ": tensor \"", name,
                     "\" is quantized already, to ", Name(stored.format), "; leave head out"),
        "options.head");
    return nullptr;
  }
  return Add(tensor, MemoryKind::kWeights, stored);
}

const Weight* Inventory::TokenTable(const std::string& name, int64_t n, int64_t k) {
  const TensorRef* tensor = Find(name, {n, k});
  return tensor == nullptr ? nullptr : Add(tensor, MemoryKind::kEmbeddings, HeadFormOf(*tensor));
}

const Weight* Inventory::Table(const std::string& name, int64_t n, int64_t k) {
  const TensorRef* tensor = Find(name, {n, k});
  return tensor == nullptr ? nullptr : Add(tensor, MemoryKind::kEmbeddings, SixteenBits(*tensor));
}

const VectorView* Inventory::Vector(const std::string& name, int64_t length) {
  const TensorRef* tensor = Find(name, {length});
  if (tensor == nullptr) return nullptr;
  PlacedVector& vector = vectors_.emplace_back();
  vector.tensor = tensor;
  vector.view.dtype = VectorType(tensor->type);
  vector.view.length = length;
  return &vector.view;
}

Linear Inventory::Projection(const std::string& prefix, int64_t n, int64_t k, bool has_bias) {
  return {Matrix(prefix + ".weight", n, k), has_bias ? Vector(prefix + ".bias", n) : nullptr};
}

void Inventory::Place(const Backend& backend, MemoryPlan* plan) {
  Cursor weights, embeddings;
  const auto arena = [&](MemoryKind kind) -> Cursor& {
    return kind == MemoryKind::kEmbeddings ? embeddings : weights;
  };
  for (PlacedMatrix& matrix : matrices_) {
    matrix.size = backend.PackedBytes(matrix.weight.spec);
    plan->items.push_back({matrix.kind, matrix.tensor->name, matrix.size.Total()});
    matrix.codes_at = arena(matrix.kind).Take(matrix.size.codes, kCodesAlignment);
  }
  for (PlacedMatrix& matrix : matrices_) {
    if (matrix.size.scales == 0) continue;
    matrix.scales_at = arena(matrix.kind).Take(matrix.size.scales, kScalesAlignment);
  }
  for (PlacedMatrix& matrix : matrices_) {
    if (matrix.size.nested == 0) continue;
    matrix.nested_at = arena(matrix.kind).Take(matrix.size.nested, kSmallAlignment);
  }
  for (PlacedMatrix& matrix : matrices_) {
    if (matrix.size.tables == 0) continue;
    matrix.tables_at = arena(matrix.kind).Take(matrix.size.tables, kSmallAlignment);
  }
  for (PlacedVector& vector : vectors_) {
    const int64_t bytes = vector.view.length * SizeOf(vector.view.dtype);
    plan->items.push_back({MemoryKind::kWeights, vector.tensor->name, bytes});
    vector.at = weights.Take(bytes, kSmallAlignment);
  }
  if (weights.padding() > 0) {
    plan->items.push_back({MemoryKind::kWeights, "padding", weights.padding()});
  }
  if (embeddings.padding() > 0) {
    plan->items.push_back({MemoryKind::kEmbeddings, "padding", embeddings.padding()});
  }
  weights_bytes_ = weights.end();
  embeddings_bytes_ = embeddings.end();
}

void Inventory::Bind(char* weights, char* embeddings) {
  for (PlacedMatrix& matrix : matrices_) {
    char* arena = matrix.kind == MemoryKind::kEmbeddings ? embeddings : weights;
    matrix.weight.codes = arena + matrix.codes_at;
    if (matrix.size.scales > 0) matrix.weight.scales = arena + matrix.scales_at;
    if (matrix.size.nested > 0) matrix.weight.nested = arena + matrix.nested_at;
    if (matrix.size.tables > 0) matrix.weight.tables = arena + matrix.tables_at;
  }
  for (PlacedVector& vector : vectors_) vector.view.data = weights + vector.at;
}

int64_t Inventory::CheckpointBytes() const {
  int64_t bytes = 0;
  for (const PlacedMatrix& matrix : matrices_) bytes += matrix.tensor->bytes;
  for (const PlacedVector& vector : vectors_) bytes += vector.tensor->bytes;
  return bytes;
}

std::vector<std::span<const uint8_t>> Inventory::MatrixBytes() const {
  std::vector<std::span<const uint8_t>> pieces;
  for (const PlacedMatrix& matrix : matrices_) {
    const TensorRef& tensor = *matrix.tensor;
    int64_t bytes = tensor.bytes;  // with what bitsandbytes keeps elsewhere
    if (IsBitsAndBytes(tensor.type)) {
      bytes = IsFourBit(FormatOf(tensor.type)) ? tensor.NumValues() / 2 : tensor.NumValues();
    }
    pieces.emplace_back(tensor.data, static_cast<size_t>(bytes));
  }
  return pieces;
}

void Inventory::ForgetCheckpoint() {
  checkpoint_ = nullptr;
  for (PlacedMatrix& matrix : matrices_) matrix.tensor = nullptr;
  for (PlacedVector& vector : vectors_) vector.tensor = nullptr;
}

}  // namespace nibble
