// Byte-level BPE: merges the bytes of a piece pair by pair, the merge of the lowest rank first and
// of equals the leftmost. Knows no text outside the piece it is given.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/tokenizer/merge_table.h"
#include "engine/tokenizer/token_span.h"
#include "engine/tokenizer/vocabulary.h"

namespace nibble {

struct BpeOptions {
  bool ignore_merges = false;  // a piece that is a token as a whole is that token
  int32_t unknown_id = -1;     // for a byte that has no token; -1: such bytes vanish
  bool fuse_unknown = false;   // neighbouring unknown bytes are one token
};

// Immutable; thread-safe. Time is O(n log n) in the length of the longest piece.
class BpeModel {
 public:
  // Kept by the caller from piece to piece so that nothing is allocated anew.
  struct Scratch {
    struct Symbol {
      int32_t id = 0;
      uint32_t begin = 0, end = 0;      // bytes of the piece
      uint32_t previous = 0, next = 0;  // of the symbols still alive
    };
    struct Candidate {
      uint32_t rank = 0;
      uint32_t at = 0;  // the left symbol
      int32_t result = 0;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
  };

  // The vocabulary must outlive the model.
  BpeModel(const Vocabulary* vocabulary, MergeTable merges, const BpeOptions& options);

  // Appends the tokens of a piece that is not empty and shorter than 2^31 bytes.
  void Tokenize(std::string_view piece, Scratch* scratch, std::vector<TokenSpan>* out) const;

  int64_t MemoryBytes() const;

 private:
  void FindWholeTokens();
  // False if bytes of the piece vanished.
  bool ReadSymbols(std::string_view piece, Scratch* scratch) const;
  void MergeFew(Scratch* scratch) const;
  void MergeMany(Scratch* scratch) const;
  void Offer(uint32_t left, Scratch* scratch) const;
  bool MergeAll(std::string_view piece, Scratch* scratch) const;  // as ReadSymbols
  void CloseGaps(std::string_view piece, std::span<TokenSpan> tokens) const;
  bool IsWhole(int32_t id) const {
    return (whole_[static_cast<size_t>(id) / 64] >> (id % 64) & 1) != 0;
  }

  const Vocabulary* vocabulary_;
  MergeTable merges_;
  BpeOptions options_;
  std::array<int32_t, 256> byte_ids_{};
  // Bit id: merging the token's own bytes gives the token, so a piece equal to it needs no merging.
  std::vector<uint64_t> whole_;
};

}  // namespace nibble
