//! Memory that can be had again at any time, or is not needed any more, is not kept.

use std::ffi::{c_int, c_void};

/// From how many bytes on a piece of memory is had from the kernel for itself.
#[cfg(target_env = "gnu")]
const LARGE: c_int = 128 << 10;

/// From now on large pieces of memory go back to the kernel when they are freed. By itself the C library learns
/// from each that there will be more, and keeps the next: one long answer is ours for ever.
pub fn return_large() {
    // SAFETY: mallopt takes two integers.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Gives back the pages between what is in use: what a long request or a long answer took lies between what stayed.
pub fn return_free() {
    // SAFETY: malloc_trim takes an integer, and touches what is free only.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Gives back the pages of code and constants, ours and the libraries': what is used from now on comes back
/// from the page cache page by page, and what only the start used, or a command line, does not. A loop that
/// mostly waits needs a small part. Nothing depends on it, so nothing is said if it fails.
pub fn forget_code() {
    // SAFETY: the callback matches the prototype and uses no data.
    unsafe { libc::dl_iterate_phdr(Some(forget_object), std::ptr::null_mut()) };
}

extern "C" fn forget_object(info: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid description of one loaded object, with `dlpi_phnum` headers.
    let (base, headers) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
        (info.dlpi_addr as usize, headers)
    };
    // SAFETY: it reads no memory of ours.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    for header in headers {
        // A segment that was never writable has no page that differs from the file's.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let first = base + header.p_vaddr as usize;
        let begin = first.next_multiple_of(page);
        let end = (first + header.p_memsz as usize) / page * page;
        if begin < end {
            // SAFETY: the range lies within a private mapping of a file that nobody has written to, this code
            // included: each page reads the same when it comes back.
            unsafe { libc::madvise(begin as *mut c_void, end - begin, libc::MADV_DONTNEED) };
        }
    }
    0
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_was_forgotten_is_there_again() {
        static WORDS: &str = "constants are there as well";
        super::forget_code();
        assert_eq!(WORDS.len(), 27);
        assert_eq!(format!("{:?}", [1, 2]), "[1, 2]");
    }
}
