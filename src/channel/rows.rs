//! Rows with generations: a dense table whose references notice that their row was reused.
//!
//! Owns: `Rows`, `RowRef`.
//! May depend on: std.
//! Invariants: growing moves no row, so a million rows grow without a stall or a second copy; a `RowRef` reaches a row iff the row still holds the value that the reference was
//! made for; an index is free iff it is on the free list.

/// Points at one value of a `Rows`, for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowRef {
    pub index: u32,
    pub generation: u32,
}

/// A table of values with dense, reused indices.
#[derive(Clone, Debug)]
pub struct Rows<T> {
    /// All full but the last.
    pages: Vec<Vec<Row<T>>>,
    free: Vec<u32>,
}

/// Rows of one page.
const PAGE_ROWS: usize = 256;

#[derive(Clone, Debug)]
struct Row<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self {
            pages: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Rows<T> {
    /// Adds a value. Panics past 2^32 rows, which memory forbids long before.
    pub fn insert(&mut self, value: T) -> RowRef {
        if let Some(index) = self.free.pop() {
            let row = self.row_mut(index).expect("a free row is there");
            assert!(row.value.is_none(), "a free row is empty");
            row.value = Some(value);
            return RowRef {
                index,
                generation: row.generation,
            };
        }
        let index = u32::try_from(self.made()).expect("fewer than 2^32 rows fit in memory");
        if self.made().is_multiple_of(PAGE_ROWS) {
            self.pages.push(Vec::with_capacity(PAGE_ROWS));
        }
        let page = self.pages.last_mut().expect("a page was made");
        page.push(Row {
            generation: 0,
            value: Some(value),
        });
        RowRef {
            index,
            generation: 0,
        }
    }

    /// Takes a value out; references to it are void from now on.
    pub fn remove(&mut self, at: RowRef) -> Option<T> {
        let row = self.row_mut(at.index)?;
        if row.generation != at.generation {
            return None;
        }
        let value = row.value.take()?;
        row.generation = row.generation.wrapping_add(1);
        self.free.push(at.index);
        Some(value)
    }

    /// The value, unless its row was given away.
    pub fn get(&self, at: RowRef) -> Option<&T> {
        let row = self.row(at.index)?;
        if row.generation == at.generation {
            row.value.as_ref()
        } else {
            None
        }
    }

    /// See `get`.
    pub fn get_mut(&mut self, at: RowRef) -> Option<&mut T> {
        let row = self.row_mut(at.index)?;
        if row.generation == at.generation {
            row.value.as_mut()
        } else {
            None
        }
    }

    /// The value at an index that its holder keeps occupied (a subscription its channel).
    pub fn at(&self, index: u32) -> Option<(RowRef, &T)> {
        let row = self.row(index)?;
        let value = row.value.as_ref()?;
        Some((
            RowRef {
                index,
                generation: row.generation,
            },
            value,
        ))
    }

    /// See `at`.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.row_mut(index)?.value.as_mut()
    }

    /// One more than the highest index that was ever used.
    pub fn bound(&self) -> u32 {
        u32::try_from(self.made()).expect("rows are numbered in 32 bits")
    }

    /// Values in use.
    pub fn len(&self) -> usize {
        self.made() - self.free.len()
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values, by index.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let rows = self.pages.iter().flatten();
        rows.filter_map(|row| row.value.as_ref())
    }

    /// Rows in use or free.
    fn made(&self) -> usize {
        let last = self.pages.last().map_or(0, Vec::len);
        self.pages.len().saturating_sub(1) * PAGE_ROWS + last
    }

    fn row(&self, index: u32) -> Option<&Row<T>> {
        let index = index as usize;
        self.pages.get(index / PAGE_ROWS)?.get(index % PAGE_ROWS)
    }

    fn row_mut(&mut self, index: u32) -> Option<&mut Row<T>> {
        let index = index as usize;
        let page = self.pages.get_mut(index / PAGE_ROWS)?;
        page.get_mut(index % PAGE_ROWS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbered_across_pages_and_stay_where_they_are() {
        let mut rows = Rows::default();
        let first = rows.insert(0);
        let place: *const i32 = rows.get(first).expect("it was inserted");
        let all: Vec<RowRef> = (1..1_000).map(|n| rows.insert(n)).collect();
        assert!(
            (1..)
                .zip(&all)
                .all(|(n, at)| at.index == n && rows.get(*at) == Some(&(n as i32)))
        );
        assert!(std::ptr::eq(
            place,
            rows.get(first).expect("it is still there")
        ));
        assert_eq!(rows.remove(all[700]), Some(701));
        assert_eq!((rows.len(), rows.iter().count()), (999, 999));
        assert_eq!(rows.insert(5).index, 701);
    }

    #[test]
    fn a_reference_does_not_reach_the_next_owner_of_its_row() {
        let mut rows = Rows::default();
        let first = rows.insert("first");
        assert_eq!(rows.remove(first), Some("first"));
        let second = rows.insert("second");
        assert_eq!(second.index, first.index);
        assert_eq!(rows.get(first), None);
        assert_eq!(rows.remove(first), None);
        assert_eq!(rows.get(second), Some(&"second"));
        assert_eq!(rows.len(), 1);
    }
}
