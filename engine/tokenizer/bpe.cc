// Short pieces, which are nearly all, look for the best pair by scanning; long ones keep a heap of
// candidates over a linked list. Both give the same tokens.
#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/tokenizer/byte_level.h"

namespace nibble {
namespace {

constexpr uint32_t kNobody = std::numeric_limits<uint32_t>::max();
constexpr size_t kFew = 32;  // symbols; above this the heap is faster

// Orders a heap so that the lowest rank, then the leftmost, is on top.
bool Later(const BpeModel::Scratch::Candidate& a, const BpeModel::Scratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.at > b.at;
}

}  // namespace

BpeModel::BpeModel(const Vocabulary* vocabulary, MergeTable merges, const BpeOptions& options)
    : vocabulary_(vocabulary), merges_(std::move(merges)), options_(options) {
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const char text = static_cast<char>(byte);
    byte_ids_[byte] = vocabulary->Find(std::string_view(&text, 1), Vocabulary::Kind::kBytes);
  }
  if (!options.ignore_merges) FindWholeTokens();
}

void BpeModel::FindWholeTokens() {
  whole_.resize(static_cast<size_t>(vocabulary_->size()) / 64 + 1);
  Scratch scratch;
  for (int32_t id = 0; id < vocabulary_->size(); ++id) {
    const std::string_view text = vocabulary_->Text(id);
    if (vocabulary_->kind(id) != Vocabulary::Kind::kBytes || text.empty()) continue;
    MergeAll(text, &scratch);
    if (scratch.symbols.size() == 1 && scratch.symbols[0].id == id) {
      whole_[static_cast<size_t>(id) / 64] |= uint64_t{1} << (id % 64);
    }
  }
}

void BpeModel::Tokenize(std::string_view piece, Scratch* scratch,
                        std::vector<TokenSpan>* out) const {
  const int32_t whole = vocabulary_->Find(piece, Vocabulary::Kind::kBytes);
  if (whole >= 0 && (options_.ignore_merges || IsWhole(whole))) {
    out->push_back({whole, 0, static_cast<uint32_t>(piece.size())});
    return;
  }
  const size_t before = out->size();
  const bool all_known = MergeAll(piece, scratch);
  for (const Scratch::Symbol& symbol : scratch->symbols) {
    out->push_back({symbol.id, symbol.begin, symbol.end});
  }
  if (!all_known) CloseGaps(piece, std::span(*out).subspan(before));
}

// Hugging Face lays the tokens side by side from the piece's beginning, so that a byte that
// vanished moves those after it to the left; and it counts in its byte-level spelling, where most
// bytes that are not ASCII take two. So do we.
void BpeModel::CloseGaps(std::string_view piece, std::span<TokenSpan> tokens) const {
  const auto spelled_bytes = [](char byte) {
    return ByteLevelCharacter(static_cast<unsigned char>(byte)) < 0x80 ? 1u : 2u;
  };
  std::vector<uint32_t> byte_at;  // by position in the spelling
  for (uint32_t i = 0; i < piece.size(); ++i)
    byte_at.resize(byte_at.size() + spelled_bytes(piece[i]), i);
  uint32_t at = 0;
  for (TokenSpan& token : tokens) {
    uint32_t length = 0;
    for (const char byte : vocabulary_->Text(token.id)) length += spelled_bytes(byte);
    token.begin = byte_at[at];
    at += length;
    token.end = byte_at[at - 1] + 1;
  }
}

bool BpeModel::MergeAll(std::string_view piece, Scratch* scratch) const {
  const bool all_known = ReadSymbols(piece, scratch);
  if (scratch->symbols.size() <= kFew) {
    MergeFew(scratch);
  } else {
    MergeMany(scratch);
  }
  return all_known;
}

bool BpeModel::ReadSymbols(std::string_view piece, Scratch* scratch) const {
  std::vector<Scratch::Symbol>& symbols = scratch->symbols;
  symbols.clear();
  bool after_unknown = false;
  bool all_known = true;
  for (uint32_t i = 0; i < piece.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(piece[i])];
    const bool unknown = id < 0;
    if (unknown && after_unknown && options_.fuse_unknown) {
      symbols.back().end = i + 1;
    } else if (!unknown || options_.unknown_id >= 0) {
      symbols.push_back({unknown ? options_.unknown_id : id, i, i + 1});
    } else {
      all_known = false;
    }
    after_unknown = unknown && options_.unknown_id >= 0;
  }
  return all_known;
}

void BpeModel::MergeFew(Scratch* scratch) const {
  std::vector<Scratch::Symbol>& symbols = scratch->symbols;
  size_t count = symbols.size();
  if (count < 2) return;
  MergeTable::Merge pairs[kFew];  // pairs[i]: of symbols i and i + 1
  const auto look_up = [&](size_t i) {
    pairs[i] = merges_.Find(symbols[i].id, symbols[i + 1].id);
    if (pairs[i].result < 0) pairs[i].rank = kNobody;
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].result < 0) break;
    symbols[best].id = pairs[best].result;
    symbols[best].end = symbols[best + 1].end;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      pairs[i - 1] = pairs[i];
    }
    --count;
    if (best > 0) look_up(best - 1);
    if (best + 1 < count) look_up(best);
  }
  symbols.resize(count);
}

void BpeModel::Offer(uint32_t left, Scratch* scratch) const {
  const Scratch::Symbol& symbol = scratch->symbols[left];
  if (symbol.next == kNobody) return;
  const MergeTable::Merge merge = merges_.Find(symbol.id, scratch->symbols[symbol.next].id);
  if (merge.result < 0) return;
  scratch->heap.push_back({merge.rank, left, merge.result});
  std::push_heap(scratch->heap.begin(), scratch->heap.end(), Later);
}

void BpeModel::MergeMany(Scratch* scratch) const {
  std::vector<Scratch::Symbol>& symbols = scratch->symbols;
  const auto count = static_cast<uint32_t>(symbols.size());
  for (uint32_t i = 0; i < count; ++i) {
    symbols[i].previous = i == 0 ? kNobody : i - 1;
    symbols[i].next = i + 1 == count ? kNobody : i + 1;
  }
  scratch->heap.clear();
  for (uint32_t i = 0; i < count; ++i) Offer(i, scratch);
  while (!scratch->heap.empty()) {
    std::pop_heap(scratch->heap.begin(), scratch->heap.end(), Later);
    const Scratch::Candidate top = scratch->heap.back();
    scratch->heap.pop_back();
    Scratch::Symbol& left = symbols[top.at];
    if (left.id < 0 || left.next == kNobody) continue;  // swallowed meanwhile, or now the last
    Scratch::Symbol& right = symbols[left.next];
    if (merges_.Find(left.id, right.id).result != top.result) continue;  // another pair by now
    left.id = top.result;
    left.end = right.end;
    left.next = right.next;
    right.id = -1;
    if (left.next != kNobody) symbols[left.next].previous = top.at;
    if (left.previous != kNobody) Offer(left.previous, scratch);
    Offer(top.at, scratch);
  }
  std::erase_if(symbols, [](const Scratch::Symbol& symbol) { return symbol.id < 0; });
}

int64_t BpeModel::MemoryBytes() const {
  return merges_.MemoryBytes() + static_cast<int64_t>(whole_.capacity() * sizeof(uint64_t));
}

}  // namespace nibble
