// The table of methods: what each is called in metrics, whom it serves, and whether a draining
// server still answers it.
#pragma once

#include "service/door.h"

namespace nibble::methods {

inline constexpr Method kGenerate = {"/nibble.v1.Inference/Generate", "generate", Role::kInference,
                                     true};
inline constexpr Method kEmbed = {"/nibble.v1.Inference/Embed", "embed", Role::kInference, true};
inline constexpr Method kTokenize = {"/nibble.v1.Inference/Tokenize", "tokenize", Role::kInference,
                                     true};
inline constexpr Method kDetokenize = {"/nibble.v1.Inference/Detokenize", "detokenize",
                                       Role::kInference, true};
inline constexpr Method kListModels = {"/nibble.v1.Models/ListModels", "list_models",
                                       Role::kObserve, false};
inline constexpr Method kGetModel = {"/nibble.v1.Models/GetModel", "get_model", Role::kObserve,
                                     false};
inline constexpr Method kEstimateModel = {"/nibble.v1.Models/EstimateModel", "estimate_model",
                                          Role::kAdmin, true};
inline constexpr Method kLoadModel = {"/nibble.v1.Models/LoadModel", "load_model", Role::kAdmin,
                                      true};
inline constexpr Method kUnloadModel = {"/nibble.v1.Models/UnloadModel", "unload_model",
                                        Role::kAdmin, true};
inline constexpr Method kGetServerInfo = {"/nibble.v1.Control/GetServerInfo", "get_server_info",
                                          Role::kObserve, false};
inline constexpr Method kGetMemory = {"/nibble.v1.Control/GetMemory", "get_memory", Role::kObserve,
                                      false};
inline constexpr Method kDrain = {"/nibble.v1.Control/Drain", "drain", Role::kAdmin, false};

}  // namespace nibble::methods
