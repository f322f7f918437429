//! Fds that are on record: whoever takes our place will look for them under their numbers. So one that is given
//! up stays open until it is on record that it is gone; before that its number must not mean anything else.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

static GIVEN_UP: Mutex<Vec<OwnedFd>> = Mutex::new(Vec::new());

/// Something that owns an fd, which dropping it does not close: [`close`] does.
#[derive(Debug)]
pub struct Kept<T: Into<OwnedFd>>(Option<T>);

impl<T: Into<OwnedFd>> From<T> for Kept<T> {
    fn from(owner: T) -> Kept<T> {
        Kept(Some(owner))
    }
}

impl<T: Into<OwnedFd>> Deref for Kept<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl<T: Into<OwnedFd>> DerefMut for Kept<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until it is dropped")
    }
}

impl<T: Into<OwnedFd> + AsFd> AsFd for Kept<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        (**self).as_fd()
    }
}

impl<T: Into<OwnedFd>> Drop for Kept<T> {
    fn drop(&mut self) {
        if let (Some(owner), Ok(mut given_up)) = (self.0.take(), GIVEN_UP.lock()) {
            given_up.push(owner.into());
        }
    }
}

/// Whether anything was given up and is not closed.
pub fn any() -> bool {
    GIVEN_UP.lock().is_ok_and(|given_up| !given_up.is_empty())
}

/// Closes what was given up: that it is gone is on record.
pub fn close() {
    if let Ok(mut given_up) = GIVEN_UP.lock() {
        // Its memory is kept for the next round, unless it was a great many.
        given_up.clear();
        given_up.shrink_to(64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;

    use crate::sys::testing::alone;

    #[test]
    fn a_number_is_not_used_again_before_it_is_off_the_record() {
        alone("sys::kept::tests::a_number_is_not_used_again_before_it_is_off_the_record", || {
            let kept = Kept::from(File::open("/dev/null").unwrap());
            let number = kept.as_raw_fd();
            drop(kept);
            let next = File::open("/dev/null").unwrap();
            assert_ne!(next.as_raw_fd(), number);
            close();
            assert_eq!(File::open("/dev/null").unwrap().as_raw_fd(), number);
        });
    }
}
