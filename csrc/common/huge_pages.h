// Huge pages for results that nobody has written to yet.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastpose {

constexpr int64_t huge_page = 2 << 20;        // bytes
constexpr int64_t huge_pages_from = 4 << 20;  // bytes: one whole huge page lies inside, wherever the memory begins

// Asks for huge pages in the whole pages inside [data, data + bytes): a page fault then maps 2 MiB instead of 4 KiB.
// Most Linux systems grant them on request only. Elsewhere, where they are switched off, and for less memory
// than huge_pages_from, nothing happens.
void prefer_huge_pages(void* data, size_t bytes);

}  // namespace fastpose
