//! Rows with generations: a dense table whose references notice that their row was reused.
//!
//! Owns: `Rows`, `RowRef`.
//! May depend on: std.
//! Invariants: a `RowRef` reaches a row iff the row still holds the value that the reference was
//! made for; an index is free iff it is on the free list.

/// Points at one value of a `Rows`, for as long as it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowRef {
    pub index: u32,
    pub generation: u32,
}

/// A table of values with dense, reused indices.
#[derive(Debug)]
pub struct Rows<T> {
    rows: Vec<Row<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Row<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Rows<T> {
    /// Adds a value. Panics past 2^32 rows, which memory forbids long before.
    pub fn insert(&mut self, value: T) -> RowRef {
        if let Some(index) = self.free.pop() {
            let row = &mut self.rows[index as usize];
            assert!(row.value.is_none(), "a free row is empty");
            row.value = Some(value);
            return RowRef {
                index,
                generation: row.generation,
            };
        }
        let index = u32::try_from(self.rows.len()).expect("fewer than 2^32 rows fit in memory");
        self.rows.push(Row {
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
        let row = self.rows.get_mut(at.index as usize)?;
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
        let row = self.rows.get(at.index as usize)?;
        if row.generation == at.generation {
            row.value.as_ref()
        } else {
            None
        }
    }

    /// See `get`.
    pub fn get_mut(&mut self, at: RowRef) -> Option<&mut T> {
        let row = self.rows.get_mut(at.index as usize)?;
        if row.generation == at.generation {
            row.value.as_mut()
        } else {
            None
        }
    }

    /// The value at an index that its holder keeps occupied (a subscription its channel).
    pub fn at(&self, index: u32) -> Option<(RowRef, &T)> {
        let row = self.rows.get(index as usize)?;
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
        self.rows.get_mut(index as usize)?.value.as_mut()
    }

    /// Values in use.
    pub fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// True without any value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All values, by index.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.rows.iter().filter_map(|row| row.value.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
