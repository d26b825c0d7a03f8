//! Sets of ports.

/// A set of ports' numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Numbers([u128; 2]);

impl Numbers {
    pub(super) fn insert(&mut self, number: u8) {
        self.0[usize::from(number >> 7)] |= 1 << (number & 0x7f);
    }

    pub(super) fn contains(self, number: u8) -> bool {
        self.0[usize::from(number >> 7)] & (1 << (number & 0x7f)) != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |number| self.contains(*number))
    }
}
