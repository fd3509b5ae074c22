//! The number that stands for an app inside one process, and rows by that number.
//!
//! Owns: `AppIndex`, `AppRows`, `AppNames`.
//! May depend on: std, `ahash`, `hashbrown`.
//! Invariants: a number is given once per process and never to another app, so one that is still on
//! its way when its app is gone finds nothing; a row takes memory only while it is there.

use ahash::RandomState;
use hashbrown::HashTable;

/// Number of an app on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppIndex(pub u32);

impl AppIndex {
    /// Of no app that is known: nothing has a row under it.
    pub const NONE: Self = Self(u32::MAX);
}

/// Something per app. Numbers only grow, so rows stand in pages, and a page without rows is freed.
// A look-up is two loads. What stays of apps that are gone is one pointer per 64 of them.
#[derive(Clone, Debug)]
pub struct AppRows<T> {
    pages: Vec<Option<Box<Page<T>>>>,
}

type Page<T> = [Option<T>; PAGE_ROWS];

/// Rows of a page.
const PAGE_ROWS: usize = PAGE as usize;
/// The same as indices count them.
pub const PAGE: u32 = 64;

impl<T> Default for AppRows<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> AppRows<T> {
    pub fn get(&self, app: AppIndex) -> Option<&T> {
        let page = self.pages.get(app.0 as usize / PAGE_ROWS)?.as_ref()?;
        page.get(app.0 as usize % PAGE_ROWS)?.as_ref()
    }

    /// The app's row, made when it is not there.
    pub fn enter(&mut self, app: AppIndex, make: impl FnOnce() -> T) -> &mut T {
        let (page, row) = (app.0 as usize / PAGE_ROWS, app.0 as usize % PAGE_ROWS);
        if page >= self.pages.len() {
            self.pages.resize_with(page + 1, || None);
        }
        let page = self.pages.get_mut(page).expect("made above");
        let page = page.get_or_insert_with(|| Box::new([const { None }; PAGE_ROWS]));
        let row = page.get_mut(row).expect("a remainder");
        row.get_or_insert_with(make)
    }

    /// Takes an app's row out.
    pub fn remove(&mut self, app: AppIndex) -> Option<T> {
        let page = self.pages.get_mut(app.0 as usize / PAGE_ROWS)?;
        let rows = page.as_mut()?;
        let row = rows.get_mut(app.0 as usize % PAGE_ROWS)?.take();
        page.take_if(|rows| rows.iter().all(Option::is_none));
        row
    }

    /// The rows by number.
    pub fn iter(&self) -> impl Iterator<Item = (AppIndex, &T)> {
        let pages = self.pages.iter().zip(0_u32..);
        let pages = pages.filter_map(|(page, number)| Some((page.as_ref()?, number)));
        pages.flat_map(|(page, number)| {
            let first = number * PAGE;
            let rows = page.iter().zip(first..);
            rows.filter_map(|(row, index)| Some((AppIndex(index), row.as_ref()?)))
        })
    }

    /// The rows of one page; `None` behind the last one.
    pub fn page(&self, page: usize) -> Option<impl Iterator<Item = (AppIndex, &T)>> {
        let rows = self.pages.get(page)?.iter().flat_map(|rows| rows.iter());
        let first = u32::try_from(page * PAGE_ROWS).ok()?;
        let rows = rows.zip(first..);
        Some(rows.filter_map(|(row, index)| Some((AppIndex(index), row.as_ref()?))))
    }

    /// Drops the rows that are not to be kept.
    pub fn retain(&mut self, keep: impl Fn(AppIndex, &T) -> bool) {
        for (page, number) in self.pages.iter_mut().zip(0_u32..) {
            let first = number * PAGE;
            let rows = page.iter_mut().flat_map(|page| page.iter_mut());
            let mut is_empty = true;
            for (row, index) in rows.zip(first..) {
                row.take_if(|row| !keep(AppIndex(index), row));
                is_empty &= row.is_none();
            }
            page.take_if(|_| is_empty);
        }
    }
}

/// Apps by a name that their rows hold, which whoever asks shows: five bytes for each.
#[derive(Clone, Debug, Default)]
pub struct AppNames {
    table: HashTable<AppIndex>,
    hasher: RandomState,
}

impl AppNames {
    pub fn get<'a>(&self, name: &str, name_of: impl Fn(AppIndex) -> &'a str) -> Option<AppIndex> {
        let hash = self.hasher.hash_one(name);
        let found = self.table.find(hash, |it| name_of(*it) == name);
        found.copied()
    }

    /// The name leads to this app from now on. Apps that it leads to must still have their rows.
    pub fn put<'a>(
        &mut self,
        name: &str,
        app: AppIndex,
        name_of: impl Fn(AppIndex) -> &'a str + Copy,
    ) {
        let hash = self.hasher.hash_one(name);
        if let Some(found) = self.table.find_mut(hash, |it| name_of(*it) == name) {
            *found = app;
            return;
        }
        let rehash = |it: &AppIndex| self.hasher.hash_one(name_of(*it));
        self.table.insert_unique(hash, app, rehash);
    }

    /// The name leads nowhere, if it led to this app.
    pub fn remove(&mut self, name: &str, app: AppIndex) -> bool {
        let hash = self.hasher.hash_one(name);
        let entry = self.table.find_entry(hash, |it| *it == app);
        entry.map(|entry| entry.remove()).is_ok()
    }

    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// In no order.
    pub fn iter(&self) -> impl Iterator<Item = AppIndex> {
        self.table.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_by_number_and_leave_no_page_behind() {
        let mut rows = AppRows::default();
        for index in [0, 63, 64, 6_400] {
            *rows.enter(AppIndex(index), || 0) += index;
        }
        *rows.enter(AppIndex(63), || 0) += 1;
        let listed: Vec<(u32, u32)> = rows.iter().map(|(app, row)| (app.0, *row)).collect();
        assert_eq!(listed, [(0, 0), (63, 64), (64, 64), (6_400, 6_400)]);
        assert_eq!(rows.get(AppIndex(1)), None);
        assert_eq!(rows.get(AppIndex::NONE), None);
        let pages = (0..).map_while(|page| Some(rows.page(page)?.count()));
        let counts: Vec<usize> = pages.collect();
        assert_eq!((counts.len(), counts.iter().sum::<usize>()), (101, 4));
        let paged = (0..101).flat_map(|page| rows.page(page).into_iter().flatten());
        assert!(paged.eq(rows.iter()));
        rows.retain(|app, _| app.0 == 63);
        let listed: Vec<u32> = rows.iter().map(|(app, _)| app.0).collect();
        assert_eq!(listed, [63]);
        assert_eq!(rows.remove(AppIndex(62)), None);
        *rows.enter(AppIndex(6_400), || 0) += 1;
        assert_eq!(rows.remove(AppIndex(6_400)), Some(1));
        assert_eq!(rows.remove(AppIndex(6_400)), None);
        assert_eq!(rows.pages.iter().flatten().count(), 1);
    }

    #[test]
    fn names_lead_to_the_app_that_was_put_last_until_it_is_taken_out() {
        let rows: Vec<String> = (0..1_000).map(|it| format!("app-{}", it % 500)).collect();
        let name_of = |app: AppIndex| rows[app.0 as usize].as_str();
        let mut names = AppNames::default();
        for index in 0..1_000 {
            names.put(&rows[index as usize], AppIndex(index), name_of);
        }
        assert_eq!(names.iter().count(), 500);
        assert_eq!(names.get("app-7", name_of), Some(AppIndex(507)));
        assert!(!names.remove("app-7", AppIndex(7)), "another has it");
        assert!(names.remove("app-7", AppIndex(507)));
        assert_eq!(names.get("app-7", name_of), None);
        assert_eq!(names.get("app-8", name_of), Some(AppIndex(508)));
        assert!(!names.is_empty());
    }
}
