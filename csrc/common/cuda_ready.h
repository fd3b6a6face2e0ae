// Whether the CUDA runtime that is linked into this module works with the machine's driver.
#pragma once

#include <string>

namespace fastpose {

// A sentence against it, or nothing. torch may work where this does not: it brings another runtime.
std::string cuda_problem();

}  // namespace fastpose
