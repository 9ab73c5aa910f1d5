//! Pools: stateless instances of a type on every shard, so that a call of one need not leave its
//! own.
//!
//! The members are ordinary entities. Their keys are the first numbers that placement puts on the
//! shard, so each side finds them by itself, and nobody keeps a list that could be wrong.

use crate::async_cx::AsyncCx;
use crate::config::{PARTITIONS, Placement};
use crate::cx::Cx;
use crate::entered::entered;
use crate::entity::Entity;
use crate::key::HashKey;
use crate::registry::Registry;
use crate::table::{Table, TypeRow};

/// Numbers that are looked at for each member. A shard has one partition in 4,096 at least, or
/// none at all; so one that finds none here has none.
const TRIES_PER_MEMBER: u64 = 16 * PARTITIONS as u64;

/// The pools of one shard, by number of the entity type.
pub(crate) struct Pools(Box<[Pool]>);

#[derive(Default)]
struct Pool {
    members: Box<[u64]>,
    next: usize,
}

impl Pools {
    pub(crate) fn new(table: &Table, hash: &HashKey, placement: &Placement, shard: u16) -> Self {
        let pool = |row: &TypeRow| {
            let count = row.instances.pooled;
            let here = |key: &u64| placement.shard(hash.hash(*key)) == shard;
            let members = tries(count).filter(here).take(count as usize).collect();
            Pool { members, next: 0 }
        };
        Self(table.types.iter().map(pool).collect())
    }

    /// The member whose turn it is.
    fn next(&mut self, kind: u16, name: &str) -> u64 {
        let pool = &mut self.0[usize::from(kind)];
        let Some(key) = pool.members.get(pool.next) else { no_pool(name) };
        pool.next = if pool.next + 1 == pool.members.len() { 0 } else { pool.next + 1 };
        *key
    }
}

fn tries(members: u32) -> std::ops::Range<u64> {
    0..u64::from(members) * TRIES_PER_MEMBER
}

#[cold]
#[inline(never)]
fn no_pool(name: &str) -> ! {
    panic!(
        "there is no pool of entity type {name} on this shard: \
         add `.pool::<{name}>(n)` where the node is built"
    );
}

/// The members of all pools of a node, for callers outside of its shards.
pub struct PoolKeys(Box<[MembersByShard]>);

type MembersByShard = Box<[Box<[u64]>]>;

impl PoolKeys {
    /// The members of the pools that the table names, on `shards` shards.
    pub fn new(table: &Table, hash: &HashKey, placement: &Placement, shards: u16) -> Self {
        let members = |row: &TypeRow| {
            let count = row.instances.pooled;
            let mut missing = count as usize * usize::from(shards);
            let mut members = vec![Vec::new(); usize::from(shards)];
            for key in tries(count) {
                if missing == 0 {
                    break;
                }
                let home = usize::from(placement.shard(hash.hash(key)));
                if let Some(there) = members.get_mut(home).filter(|m| m.len() < count as usize) {
                    there.push(key);
                    missing -= 1;
                }
            }
            members.into_iter().map(Vec::into_boxed_slice).collect()
        };
        Self(table.types.iter().map(members).collect())
    }

    /// The member for the call with this number: consecutive numbers go to consecutive shards.
    ///
    /// # Panics
    /// When the node has no pool of `E`.
    pub fn member<E: Entity<Key = u64>>(&self, table: &Table, number: usize) -> u64 {
        let kind = table.find_entity::<E>();
        let Some(pool) = kind.and_then(|kind| self.0.get(usize::from(kind))) else {
            no_pool(E::NAME)
        };
        let shards = pool.len();
        let begin = number % shards;
        // A shard that owns no partition has no members.
        let next_with_members =
            (begin..begin + shards).map(|at| &pool[at % shards]).find(|pool| !pool.is_empty());
        let Some(members) = next_with_members else { no_pool(E::NAME) };
        members[number / shards % members.len()]
    }
}

impl std::fmt::Debug for PoolKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pools = self.0.iter().filter(|pool| pool.iter().any(|members| !members.is_empty()));
        f.debug_struct("PoolKeys").field("pools", &pools.count()).finish_non_exhaustive()
    }
}

impl Registry {
    /// Registers an entity type that has a pool of `per_shard` members on each shard. They are
    /// activated by their first messages, and live as the type's [`Life`](crate::Life) declares.
    ///
    /// # Panics
    /// When `per_shard` is 0.
    pub fn pool<E: Entity<Key = u64>>(&mut self, per_shard: u32) -> &mut Self {
        assert!(per_shard > 0, "a pool has members");
        self.row_of::<E>().instances.pooled = per_shard;
        self
    }
}

impl<'a, E: Entity> Cx<'a, E> {
    /// The way to a member of the pool of `T` on this shard: each in turn.
    ///
    /// # Panics
    /// When the node has no pool of `T`.
    ///
    /// # Cost
    /// As for any entity of the same shard: nothing leaves the core.
    #[inline]
    pub fn pool<T: Entity<Key = u64>>(&mut self) -> T::Ref<&mut Cx<'a, E>> {
        let kind = self.core.directory.entity::<T>();
        let key = self.core.pools.next(kind, T::NAME);
        self.entity::<T>(key)
    }
}

impl<E: Entity> AsyncCx<E> {
    /// The way to a member of the pool of `T` on this shard: each in turn. Await the call to ask.
    ///
    /// # Panics
    /// When the node has no pool of `T`.
    pub fn pool<T: Entity<Key = u64>>(&self) -> T::Ref<&AsyncCx<E>> {
        let key = entered(|turn| {
            turn.with_core(|core| {
                let kind = core.directory.entity::<T>();
                core.pools.next(kind, T::NAME)
            })
        });
        self.entity::<T>(key)
    }
}
