#include "common/huge_pages.h"

#include <cstdint>

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace fastpose {

void prefer_huge_pages(void* data, size_t bytes) {
    if (bytes < static_cast<size_t>(huge_pages_from)) return;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t address = reinterpret_cast<uintptr_t>(data);
    const uintptr_t first = (address + page - 1) / page * page, last = (address + bytes) / page * page;
    // A refusal (a kernel without huge pages) changes nothing: small pages serve.
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
    static_cast<void>(data), static_cast<void>(bytes);
#endif
}

}  // namespace fastpose
