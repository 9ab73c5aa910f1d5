//! Money that the book can follow.

use super::book;

/// Money on its way, or in an account: it is somewhere, once, or was destroyed with its holder.
#[derive(Debug, Default)]
pub(crate) struct Coins(u64);

impl Coins {
    pub(crate) fn mint(amount: u64) -> Self {
        book(|book| book.minted += amount);
        Self(amount)
    }

    pub(crate) fn amount(&self) -> u64 {
        self.0
    }

    /// Takes up to `amount` out.
    pub(crate) fn take(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.0);
        self.0 -= amount;
        Self(amount)
    }

    pub(crate) fn put(&mut self, mut other: Self) {
        self.0 += std::mem::take(&mut other.0);
    }
}

impl Drop for Coins {
    fn drop(&mut self) {
        let amount = self.0;
        if amount > 0 {
            book(|book| book.destroyed += amount);
        }
    }
}
