//! The index of a store: hash of a key to slot, one cache line per probe.
//!
//! A bucket is one cache line: twelve one-byte tags, twelve slot numbers, and a link to an overflow
//! bucket. A probe compares the twelve tags at once; keys themselves stand in the slots, so a
//! match is confirmed where the entity is, in a line that its turn needs anyway. An entry takes 5
//! bytes, at the usual fill about 10 with the air around it.
//!
//! The table grows by *linear hashing* (Litwin 1980): one bucket is split for every few entries, in
//! a fixed order, so growth is spread evenly over insertions, and no insertion ever pays for
//! a rehash of millions. `n` buckets stand; `mask` is the next power of two less one; an entry
//! belongs to bucket `h & mask`, or, if that does not stand yet, to the one it will be split from.
//!
//! # Invariants
//! A tag of 0 marks a free place; the tag of an entry is never 0. Every entry is in the chain of
//! the bucket that its hash names. A chain has at most one bucket with free places, its last,
//! except right after a split.
#![expect(unsafe_code, reason = "buckets lie in reserved memory and are probed with SSE2")]

use std::io;

use crate::pages::Region;

/// A slot's number within its store.
pub(crate) type SlotNumber = u32;

const PLACES: usize = 12;

/// Mean number of entries per bucket. A bucket that waits for its split holds up to twice that.
const FILL: usize = 6;

/// One cache line of entries.
#[repr(C, align(64))]
struct Bucket {
    tags: [u8; PLACES],
    /// Number of the next bucket of the chain in the overflow region, plus one; 0 for none.
    link: u32,
    slots: [SlotNumber; PLACES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// Hash of a key to slot number. What a probe reads comes first.
#[repr(C)]
pub(crate) struct Index {
    /// First bucket; never moves.
    buckets: *mut Bucket,
    /// Buckets that stand.
    standing: usize,
    /// Next power of two above `standing - 1`, less one.
    mask: usize,
    len: usize,
    region: Region,
    overflow: Overflow,
}

/// Buckets behind full ones.
struct Overflow {
    region: Region,
    used: u32,
    used_max: u32,
    /// First free one, plus one; linked through `link`.
    free: u32,
}

// SAFETY: the pointer is into the region that the index owns.
unsafe impl Send for Index {}

/// No room for another entry within the reserved memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct IndexFull;

impl Index {
    /// An empty index with room for `entries_max` entries.
    ///
    /// # Errors
    /// The kernel's when the addresses cannot be reserved.
    pub(crate) fn new(entries_max: usize) -> io::Result<Self> {
        let buckets_max = entries_max / FILL + 2;
        let mut region = Region::reserve(buckets_max * size_of::<Bucket>())?;
        let overflow_max = buckets_max / 2 + 64;
        let overflow = Region::reserve(overflow_max * size_of::<Bucket>())?;
        if !region.ensure(size_of::<Bucket>()) {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            buckets: region.start().cast(),
            standing: 1,
            mask: 0,
            len: 0,
            region,
            overflow: Overflow {
                region: overflow,
                used: 0,
                used_max: overflow_max as u32,
                free: 0,
            },
        })
    }

    /// Entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the buckets that stand, overflow included.
    pub(crate) fn bytes(&self) -> usize {
        (self.standing + self.overflow.used as usize) * size_of::<Bucket>()
    }

    /// Where a probe for `hash` begins, in 32 bits, to be kept while its line is on the way; and
    /// that line.
    ///
    /// A bucket that is split meanwhile stays where it is, so a place that was kept is at worst the
    /// wrong one.
    #[inline(always)]
    pub(crate) fn place(&self, hash: u64) -> (Place, *const u8) {
        let number = self.number_of(hash);
        let place = Place((number as u32) << 8 | u32::from(tag(hash)));
        (place, self.buckets.wrapping_add(number).cast())
    }

    /// The slots in the bucket of `place` whose tag fits.
    #[inline(always)]
    pub(crate) fn candidates(&self, place: Place) -> Candidates {
        let number = (place.0 >> 8) as usize;
        debug_assert!(number < self.standing);
        // SAFETY: it stood when the place was made (the upper bits of a larger number are lost,
        // which makes it smaller), and buckets do not go.
        Candidates::of(unsafe { self.buckets.add(number) }, place.0 as u8)
    }

    #[inline(always)]
    fn number_of(&self, hash: u64) -> usize {
        let wide = hash as usize & self.mask;
        // What does not stand yet is split from a bucket that does.
        if wide < self.standing { wide } else { wide & (self.mask >> 1) }
    }

    #[inline(always)]
    fn bucket_of(&self, hash: u64) -> *mut Bucket {
        // SAFETY: below `standing`.
        unsafe { self.buckets.add(self.number_of(hash)) }
    }

    /// The slot for which `is_key` is true among those whose tag fits.
    #[inline]
    pub(crate) fn find(
        &self,
        hash: u64,
        mut is_key: impl FnMut(SlotNumber) -> bool,
    ) -> Option<SlotNumber> {
        let mut bucket = self.bucket_of(hash);
        loop {
            let mut candidates = Candidates::of(bucket, tag(hash));
            while let Some(slot) = candidates.next() {
                if is_key(slot) {
                    return Some(slot);
                }
            }
            bucket = self.next(bucket)?;
        }
    }

    #[inline]
    fn next(&self, bucket: *mut Bucket) -> Option<*mut Bucket> {
        // SAFETY: the bucket stands, in one of the two regions.
        match unsafe { (*bucket).link } {
            0 => None,
            link => Some(self.overflow.bucket(link)),
        }
    }

    /// Adds an entry. The key must not be in the index. `hash_of` gives the hash of a slot's key
    /// again, for the entries of the bucket that is split on the way.
    ///
    /// # Errors
    /// [`IndexFull`] when the reserved memory is used up; nothing is added then.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        slot: SlotNumber,
        hash_of: impl Fn(SlotNumber) -> u64,
    ) -> Result<(), IndexFull> {
        if self.len >= self.standing * FILL {
            self.split(&hash_of);
        }
        self.put(self.bucket_of(hash), tag(hash), slot)?;
        self.len += 1;
        Ok(())
    }

    fn put(&mut self, first: *mut Bucket, tag: u8, slot: SlotNumber) -> Result<(), IndexFull> {
        let mut bucket = first;
        loop {
            let mut free = Candidates::of(bucket, 0);
            // SAFETY: the bucket stands, and nothing else refers into it.
            let here = unsafe { &mut *bucket };
            if let Some(place) = free.next_place() {
                here.tags[place] = tag;
                here.slots[place] = slot;
                return Ok(());
            }
            bucket = match self.next(bucket) {
                Some(next) => next,
                None => {
                    here.link = self.overflow.take()?;
                    self.overflow.bucket(here.link)
                }
            };
        }
    }

    /// Divides the bucket whose turn it is between itself and a new one.
    fn split(&mut self, hash_of: &impl Fn(SlotNumber) -> u64) {
        let room = self.region.ensure((self.standing + 1) * size_of::<Bucket>());
        let chain_length = self.next_split_chain().count();
        if !room || !self.overflow.has_room(chain_length as u32 - 1) {
            // No memory for another bucket and its chain: chains get longer instead.
            return;
        }
        if self.standing > self.mask {
            self.mask = self.mask * 2 + 1;
        }
        let number = self.standing & (self.mask >> 1);
        // SAFETY: number < standing; the new bucket's memory was just made usable, and is zero.
        let (old, new) = unsafe { (self.buckets.add(number), self.buckets.add(self.standing)) };
        self.standing += 1;

        let mut chain = Some(old);
        let mut kept = Keep::at(old);
        while let Some(bucket) = chain {
            // SAFETY: the bucket stands; entries are copied out, so no reference stays.
            let (tags, slots) = unsafe { ((*bucket).tags, (*bucket).slots) };
            chain = self.next(bucket);
            // SAFETY: as above.
            unsafe { (*bucket).tags = [0; PLACES] };
            for (tag, slot) in tags.into_iter().zip(slots) {
                if tag == 0 {
                    continue;
                }
                if self.bucket_of(hash_of(slot)) == new {
                    let placed = self.put(new, tag, slot);
                    assert_eq!(placed, Ok(()), "room for the whole chain was made before");
                } else {
                    kept.put(self, tag, slot);
                }
            }
        }
        self.trim(kept.bucket);
    }

    /// Takes the buckets behind `last` out of its chain.
    fn trim(&mut self, last: *mut Bucket) {
        // SAFETY: `last` stands.
        let mut link = std::mem::take(unsafe { &mut (*last).link });
        while link != 0 {
            let bucket = self.overflow.bucket(link);
            // SAFETY: an overflow bucket in use; it is emptied and free from here on.
            let next = unsafe { (*bucket).link };
            self.overflow.give(link);
            link = next;
        }
    }

    /// The bucket that is split next.
    fn next_split(&self) -> *mut Bucket {
        let mask = if self.standing > self.mask { self.mask * 2 + 1 } else { self.mask };
        // SAFETY: below `standing`.
        unsafe { self.buckets.add(self.standing & (mask >> 1)) }
    }

    fn next_split_chain(&self) -> impl Iterator<Item = *mut Bucket> {
        std::iter::successors(Some(self.next_split()), |bucket| self.next(*bucket))
    }

    /// The slots in the bucket that is split next, whose keys the split will hash: known ahead, so
    /// their lines can be fetched ahead.
    pub(crate) fn next_split_slots(&self) -> impl Iterator<Item = SlotNumber> {
        let bucket = self.next_split();
        // SAFETY: the bucket stands; a copy of one line.
        let (tags, slots) = unsafe { ((*bucket).tags, (*bucket).slots) };
        tags.into_iter().zip(slots).filter(|(tag, _)| *tag != 0).map(|(_, slot)| slot)
    }

    /// Whether the next insertion splits a bucket.
    #[inline(always)]
    pub(crate) fn split_is_near(&self) -> bool {
        self.len + 2 >= self.standing * FILL
    }

    /// Takes the entry of `slot` out. Returns whether it was there.
    pub(crate) fn remove(&mut self, hash: u64, slot: SlotNumber) -> bool {
        let first = self.bucket_of(hash);
        let mut bucket = first;
        let (hole, place) = loop {
            let mut candidates = Candidates::of(bucket, tag(hash));
            let found = std::iter::from_fn(|| candidates.next_place())
                // SAFETY: the bucket stands, and a place is below PLACES.
                .find(|place| unsafe { (*bucket).slots[*place] } == slot);
            if let Some(place) = found {
                break (bucket, place);
            }
            match self.next(bucket) {
                Some(next) => bucket = next,
                None => return false,
            }
        };
        // SAFETY: the bucket stands.
        unsafe { (*hole).tags[place] = 0 };
        self.len -= 1;
        self.refill(first, hole, place);
        true
    }

    /// Moves an entry from the end of the chain into the hole, so that only the last bucket of a
    /// chain has free places, and gives the last one back once it is empty.
    fn refill(&mut self, first: *mut Bucket, hole: *mut Bucket, place: usize) {
        let (mut before, mut last) = (first, first);
        while let Some(next) = self.next(last) {
            (before, last) = (last, next);
        }
        if last == first {
            return;
        }
        // SAFETY: both buckets stand; raw places, no two references into one bucket at a time.
        unsafe {
            let taken = (*last).tags.iter().position(|tag| *tag != 0);
            if let Some(taken) = taken
                && last != hole
            {
                (*hole).tags[place] = (*last).tags[taken];
                (*hole).slots[place] = (*last).slots[taken];
                (*last).tags[taken] = 0;
            }
            if (*last).tags == [0; PLACES] {
                let link = std::mem::take(&mut (*before).link);
                self.overflow.give(link);
            }
        }
    }
}

/// Where the entries that stay are put during a split: compacted from the front of the old chain.
struct Keep {
    bucket: *mut Bucket,
    place: usize,
}

impl Keep {
    fn at(bucket: *mut Bucket) -> Self {
        Self { bucket, place: 0 }
    }

    fn put(&mut self, index: &Index, tag: u8, slot: SlotNumber) {
        if self.place == PLACES {
            // The chain held at least as many entries, so there is a next bucket; it was read
            // before this place in it is written.
            if let Some(next) = index.next(self.bucket) {
                *self = Self::at(next);
            }
        }
        // SAFETY: a bucket of the old chain; place < PLACES.
        unsafe {
            (*self.bucket).tags[self.place] = tag;
            (*self.bucket).slots[self.place] = slot;
        }
        self.place += 1;
    }
}

impl Overflow {
    #[inline]
    fn bucket(&self, link: u32) -> *mut Bucket {
        debug_assert!(link >= 1 && link <= self.used);
        // SAFETY: links name buckets that were taken, which are usable.
        unsafe { self.region.start().cast::<Bucket>().add(link as usize - 1) }
    }

    fn take(&mut self) -> Result<u32, IndexFull> {
        if self.free != 0 {
            let link = self.free;
            let bucket = self.bucket(link);
            // SAFETY: a free bucket is in nobody's chain.
            self.free = std::mem::take(unsafe { &mut (*bucket).link });
            return Ok(link);
        }
        if !self.has_room(1) {
            return Err(IndexFull);
        }
        self.used += 1;
        Ok(self.used)
    }

    /// Whether `count` buckets can be taken; their memory is usable then.
    fn has_room(&mut self, count: u32) -> bool {
        let used = self.used + count;
        used <= self.used_max && self.region.ensure(used as usize * size_of::<Bucket>())
    }

    fn give(&mut self, link: u32) {
        let bucket = self.bucket(link);
        // SAFETY: the caller took it out of its chain.
        unsafe {
            (*bucket).tags = [0; PLACES];
            (*bucket).link = self.free;
        }
        self.free = link;
    }
}

/// Where a probe begins: 24 bits of a bucket's number (enough for a hundred million entries; with
/// more, some probes are not prepared), and the tag.
#[derive(Clone, Copy)]
pub(crate) struct Place(u32);

impl Place {
    #[inline(always)]
    pub(crate) const fn to_bits(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }
}

/// The places of one bucket whose tag fits.
pub(crate) struct Candidates {
    bucket: *const Bucket,
    places: u32,
}

impl Candidates {
    #[inline(always)]
    fn of(bucket: *const Bucket, tag: u8) -> Self {
        // SAFETY: the bucket stands; tags and link are its first 16 bytes.
        let places = unsafe { matches(bucket.cast(), tag) };
        Self { bucket, places }
    }

    #[inline(always)]
    fn next_place(&mut self) -> Option<usize> {
        if self.places == 0 {
            return None;
        }
        let place = self.places.trailing_zeros() as usize;
        self.places &= self.places - 1;
        Some(place)
    }

    /// The next slot number.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<SlotNumber> {
        let place = self.next_place()?;
        // SAFETY: the bucket stands; place < PLACES by the mask in `matches`.
        Some(unsafe { *(&raw const (*self.bucket).slots).cast::<SlotNumber>().add(place) })
    }
}

/// Which of the twelve tags at `tags` equal `tag`, as a bit mask.
///
/// # Safety
/// 16 bytes at `tags` are readable and aligned to 16.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn matches(tags: *const u8, tag: u8) -> u32 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_load_si128, _mm_movemask_epi8, _mm_set1_epi64x,
    };
    // SAFETY: SSE2 is part of x86-64; the caller vouches for the 16 bytes.
    let line = unsafe { _mm_load_si128(tags.cast::<__m128i>()) };
    // A multiplication spreads the tag with fewer instructions than SSE2's shuffles do.
    let spread = u64::from(tag).wrapping_mul(0x0101_0101_0101_0101);
    // SAFETY: SSE2 is part of x86-64.
    let equal = unsafe { _mm_cmpeq_epi8(line, _mm_set1_epi64x(spread as i64)) };
    // SAFETY: as above.
    unsafe { _mm_movemask_epi8(equal) as u32 & 0xfff }
}

/// Which of the twelve tags at `tags` equal `tag`, as a bit mask.
///
/// # Safety
/// 12 bytes at `tags` are readable.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn matches(tags: *const u8, tag: u8) -> u32 {
    // SAFETY: by contract.
    let tags = unsafe { tags.cast::<[u8; PLACES]>().read() };
    tags.iter().enumerate().fold(0, |mask, (i, t)| mask | u32::from(*t == tag) << i)
}

/// Eight bits of the hash that neither placement (the top 12) nor the bucket (the low bits) uses.
#[inline(always)]
fn tag(hash: u64) -> u8 {
    let tag = (hash >> 44) as u8;
    tag + u8::from(tag == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::HashKey;
    use std::collections::BTreeSet;

    const HASH: HashKey = HashKey::new(99);

    /// Slots and keys are the same number here, so that a slot's hash is at hand.
    fn hash_of(slot: SlotNumber) -> u64 {
        HASH.hash(u64::from(slot))
    }

    #[test]
    fn index_behaves_as_a_map_under_insertions_and_removals() {
        let mut index = Index::new(1 << 20).expect("address space");
        let mut model = BTreeSet::new();
        let mut random = 88_172_645_463_325_252_u64;
        for step in 0..400_000u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let slot = (random >> 20) as u32 % 60_000;
            let hash = hash_of(slot);
            let shrinking = step / 50_000 % 3 == 2;
            if model.contains(&slot) {
                assert_eq!(index.find(hash, |s| s == slot), Some(slot));
                if shrinking || random.is_multiple_of(4) {
                    assert!(index.remove(hash, slot));
                    model.remove(&slot);
                }
            } else {
                assert_eq!(index.find(hash, |s| s == slot), None);
                assert!(!index.remove(hash, slot));
                if !shrinking {
                    assert_eq!(index.insert(hash, slot, hash_of), Ok(()));
                    model.insert(slot);
                }
            }
            assert_eq!(index.len(), model.len());
        }
        for slot in &model {
            assert_eq!(index.find(hash_of(*slot), |s| s == *slot), Some(*slot));
        }
    }

    #[test]
    fn a_million_entries_take_about_eleven_bytes_each() {
        const COUNT: u32 = 1_000_000;
        let mut index = Index::new(COUNT as usize).expect("address space");
        for slot in 0..COUNT {
            assert_eq!(index.insert(hash_of(slot), slot, hash_of), Ok(()));
        }
        let each = index.bytes() as f64 / f64::from(COUNT);
        assert!(each < 11.5, "{each:.1} bytes per entry");
        for slot in 0..COUNT {
            assert_eq!(index.find(hash_of(slot), |s| s == slot), Some(slot));
        }
    }

    #[test]
    fn keys_that_share_one_hash_still_find_their_slots() {
        let mut index = Index::new(1000).expect("address space");
        for slot in 0..100 {
            assert_eq!(index.insert(7, slot, |_| 7), Ok(()));
        }
        for slot in 0..100 {
            assert_eq!(index.find(7, |s| s == slot), Some(slot));
        }
        for slot in 0..100 {
            assert!(index.remove(7, slot));
        }
        assert_eq!(index.len(), 0);
        assert_eq!(index.find(7, |_| true), None);
    }

    #[test]
    fn exhausted_memory_is_an_error_and_not_a_loss() {
        let mut index = Index::new(10).expect("address space");
        let mut placed = 0;
        while index.insert(7, placed, |_| 7).is_ok() {
            placed += 1;
        }
        assert!(placed >= 10);
        for slot in 0..placed {
            assert_eq!(index.find(7, |s| s == slot), Some(slot));
        }
    }
}
