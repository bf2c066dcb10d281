//! The process's memory: mimalloc, asked so that parked connections cost little.
//!
//! Invariants: what is freed goes back to the system when a worker has freed much, whatever it does
//! afterwards; the heap is in small pages, so that memory that went back stays there.

#![expect(unsafe_code, reason = "an allocator, and hints to it")]

use std::{
    alloc::{GlobalAlloc, Layout},
    io,
};

use libmimalloc_sys::{
    mi_collect, mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc,
    mi_zalloc_aligned,
};

/// The program's allocator. glibc's would keep the arena of a worker's thread at its peak.
///
/// The `mimalloc` crate names the alignment in every call. mimalloc then takes a longer way for
/// sizes that are no power of two, and often the next larger kind of block: 160 bytes take 192.
/// Parts of active connections then lie between those of parked ones, and no page can go back.
pub struct Heap;

/// Alignment that mimalloc gives to every block of that size or larger.
const ALIGN_BYTES: usize = 16;

fn is_aligned_anyway(align: usize, size: usize) -> bool {
    align <= ALIGN_BYTES && align <= size
}

// SAFETY: mimalloc's functions are an allocator's: blocks do not overlap, live until they are
// freed, and are null when there is no memory. A block of `mi_malloc` is aligned to 16 bytes, or
// to 8 where it has no 16; where a layout wants more, or more than its size, it is asked for.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: any size is allowed, and the alignment of a layout is a power of two.
        unsafe {
            match is_aligned_anyway(align, size) {
                true => mi_malloc(size).cast(),
                false => mi_malloc_aligned(size, align).cast(),
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as in `alloc`.
        unsafe {
            match is_aligned_anyway(align, size) {
                true => mi_zalloc(size).cast(),
                false => mi_zalloc_aligned(size, align).cast(),
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: the caller hands over a block of this allocator, however it was asked for.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: as in `dealloc`; what is left where it was has the alignment that it had.
        unsafe {
            match is_aligned_anyway(align, size) {
                true => mi_realloc(block.cast(), size).cast(),
                false => mi_realloc_aligned(block.cast(), size, align).cast(),
            }
        }
    }
}

/// Hands free pages of the calling thread back to the system, which mimalloc otherwise does only
/// while it allocates, and an idle worker does not. Costs a system call for each range of pages.
pub fn give_back() {
    // SAFETY: may be called at any time.
    unsafe { mi_collect(true) };
}

/// Keeps this process's memory in small pages, even where the system gives huge ones unasked: in
/// 2 MiB of which a few bytes are in use all of it counts, and the kernel joins small pages to huge
/// ones again after their neighbours were given back.
pub fn without_huge_pages() -> io::Result<()> {
    Ok(rustix::thread::disable_transparent_huge_pages(true)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_as_asked_and_keep_their_bytes() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in [1, 2, 3, 7, 8, 12, 15, 16, 17, 24, 112, 120, 160, 2320, 8520, 70_000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: blocks are used within their sizes and freed once, with their layout.
                unsafe {
                    // Several, because the first of a page may be aligned by chance.
                    let blocks: Vec<*mut u8> = (0..5).map(|_| Heap.alloc(layout)).collect();
                    for &block in &blocks {
                        assert!(block.addr().is_multiple_of(align), "{size} bytes at {align}");
                        block.write_bytes(0xa5, size);
                    }
                    for block in blocks {
                        let larger = Layout::from_size_align(size * 3, align).unwrap();
                        let moved = Heap.realloc(block, layout, larger.size());
                        assert!(moved.addr().is_multiple_of(align), "{size} bytes at {align}");
                        let kept = std::slice::from_raw_parts(moved, size);
                        assert!(kept.iter().all(|byte| *byte == 0xa5));
                        Heap.dealloc(moved, larger);
                    }
                    let zeroed = Heap.alloc_zeroed(layout);
                    assert!(zeroed.addr().is_multiple_of(align), "{size} bytes at {align}");
                    assert!(std::slice::from_raw_parts(zeroed, size).iter().all(|b| *b == 0));
                    Heap.dealloc(zeroed, layout);
                }
            }
        }
    }
}
