// Huge pages for results that nobody has written to yet.
#pragma once

#include <cstddef>

namespace fastpose {

// Asks for huge pages in the whole pages inside [data, data + bytes): a page fault then maps 2 MiB instead of 4 KiB.
// Most Linux systems grant them on request only. Elsewhere, and where they are switched off, nothing happens.
void prefer_huge_pages(void* data, size_t bytes);

}  // namespace fastpose
