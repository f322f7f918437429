//! System calls without libc, for a child that shares our memory while we go on: libc notes every error in memory
//! that is the thread's, and theirs is ours.

use libc::{c_int, c_long};

/// Whether the calls of this machine are known here. Elsewhere they are libc's, and who makes them must be alone.
pub(super) const IS_BARE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// What the kernel takes as an argument.
pub(super) trait Word {
    fn word(self) -> isize;
}

macro_rules! number {
    ($($number:ty)*) => {
        $(impl Word for $number {
            fn word(self) -> isize {
                self as isize
            }
        })*
    };
}

number!(i32 u32 i64 u64 usize);

impl<T: ?Sized> Word for *const T {
    fn word(self) -> isize {
        self.cast::<()>() as isize
    }
}

impl<T: ?Sized> Word for *mut T {
    fn word(self) -> isize {
        self.cast::<()>() as isize
    }
}

impl<T> Word for &T {
    fn word(self) -> isize {
        std::ptr::from_ref(self).word()
    }
}

impl<T> Word for &mut T {
    fn word(self) -> isize {
        std::ptr::from_mut(self).word()
    }
}

/// A call of up to six arguments. What it returns, or an errno below zero.
macro_rules! call {
    ($number:expr $(, $argument:expr)*) => {
        $crate::sys::spawn::bare::enter(
            $number,
            $crate::sys::spawn::bare::six([$($crate::sys::spawn::bare::Word::word($argument)),*]),
        )
    };
}
pub(super) use call;

/// The rest is not looked at.
pub(super) fn six<const GIVEN: usize>(given: [isize; GIVEN]) -> [isize; 6] {
    let mut all = [0; 6];
    for (place, word) in all.iter_mut().zip(given) {
        *place = word;
    }
    all
}

/// See [`call!`].
///
/// # Safety
/// As for the call.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe fn enter(number: c_long, [a, b, c, d, e, f]: [isize; 6]) -> c_long {
    let result: isize;
    // SAFETY: the kernel changes these three registers and what the caller lets it change.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result as c_long
}

/// See [`call!`].
///
/// # Safety
/// As for the call.
#[cfg(target_arch = "aarch64")]
pub(super) unsafe fn enter(number: c_long, [a, b, c, d, e, f]: [isize; 6]) -> c_long {
    let result: isize;
    // SAFETY: the kernel changes this register and what the caller lets it change.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            in("x5") f,
            options(nostack),
        );
    }
    result as c_long
}

/// See [`call!`].
///
/// # Safety
/// As for the call, and for who shares memory with others: they wait.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) unsafe fn enter(number: c_long, [a, b, c, d, e, f]: [isize; 6]) -> c_long {
    // SAFETY: as the caller promises.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { -c_long::from(nix::errno::Errno::last_raw()) } else { result }
}

/// The errno of a call that failed.
pub(super) fn errno(result: c_long) -> Option<c_int> {
    (result < 0).then_some(-result as c_int)
}
