//! All connections of a shard, by slot index.
//!
//! Owns: `ConnectionTable`, rows in pages.
//! May depend on: `connection::row`.
//! Invariants: a page once made stays where it is, so growing copies no row, and its rows are
//! reused; an index below `len` has a row, vacant or not.

use std::ops::{Index, IndexMut};

use super::row::Connection;

/// Rows of connections. An index past the end must be asked for with `grow_to` first.
#[derive(Clone, Debug, Default)]
pub struct ConnectionTable {
    pages: Vec<Box<[Connection]>>,
}

/// Rows of one page: 34 KiB.
const PAGE_ROWS: usize = 256;

impl ConnectionTable {
    /// Makes rows up to an index, vacant ones.
    pub fn grow_to(&mut self, index: usize) {
        while self.len() <= index {
            self.pages
                .push((0..PAGE_ROWS).map(|_| Connection::vacant()).collect());
        }
    }

    /// Rows made so far.
    pub fn len(&self) -> usize {
        self.pages.len() * PAGE_ROWS
    }

    /// True before the first connection.
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// The row of an index, if it was ever used.
    pub fn get(&self, index: usize) -> Option<&Connection> {
        self.pages.get(index / PAGE_ROWS)?.get(index % PAGE_ROWS)
    }

    /// See `get`.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Connection> {
        let page = self.pages.get_mut(index / PAGE_ROWS)?;
        page.get_mut(index % PAGE_ROWS)
    }

    /// All rows, by index.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.pages.iter().flatten()
    }
}

impl Index<usize> for ConnectionTable {
    type Output = Connection;

    fn index(&self, index: usize) -> &Connection {
        &self.pages[index / PAGE_ROWS][index % PAGE_ROWS]
    }
}

impl IndexMut<usize> for ConnectionTable {
    fn index_mut(&mut self, index: usize) -> &mut Connection {
        &mut self.pages[index / PAGE_ROWS][index % PAGE_ROWS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_moves_no_row_that_is_there() {
        let mut table = ConnectionTable::default();
        assert!(table.get(0).is_none());
        table.grow_to(0);
        table[3].operation = 7;
        let before: *const Connection = &raw const table[3];
        table.grow_to(PAGE_ROWS * 9);
        assert!(std::ptr::eq(before, &raw const table[3]));
        assert_eq!(table[3].operation, 7);
        assert_eq!(table.len(), PAGE_ROWS * 10);
        assert!(table.get(PAGE_ROWS * 10).is_none());
    }
}
