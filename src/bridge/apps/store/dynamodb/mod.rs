//! Apps in a table of DynamoDB.
//!
//! Owns: `DynamodbStore`: the deadline around each question, and cutting long lists into batches.
//! May depend on: `bridge::aws`, `config`, tokio, the crate `aws-sdk-dynamodb`.
//! Invariants: nothing here waits longer than `database.dynamodb.timeout_ms` for one question, its retries included;
//! only GetItem, BatchGetItem and Query are used; names of attributes go over as placeholders, since `key` is a
//! reserved word.

mod fault;
mod item;
mod rows;
mod setup;

pub use rows::DynamodbRows;

use std::{sync::Arc, time::Duration};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeValue, KeysAndAttributes},
};
use tokio::{sync::watch, time::timeout};

use self::{
    fault::Failed,
    setup::{DynamodbSetup, Names},
};
use super::{
    AppName, FoundApps, StoreError, StoreSetupError,
    crowd::{Crowd, PLACES_OF_KNOWN, places_of_others},
    found::{self, Found, may_be_a_name},
};
use crate::{
    config::{App, AppDefaults, Config},
    metrics::backend::{Meter, Role},
};

/// A clone is the same store.
#[derive(Clone, Debug)]
pub struct DynamodbStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    setup: DynamodbSetup,
    client: Client,
    /// For apps that are known, and whether the service is there.
    of_known: Crowd,
    of_others: Crowd,
    meter: Meter,
    /// Of the latest reload.
    defaults: watch::Sender<Arc<AppDefaults>>,
}

impl DynamodbStore {
    /// Looks for credentials, which may take two and a half seconds where there are none.
    pub fn start(config: &Config) -> Result<Self, StoreSetupError> {
        let setup = DynamodbSetup::of(config);
        let client = setup.client()?;
        let defaults = Arc::new(config.app_manager.app_defaults.clone());
        let shared = Shared {
            setup,
            client,
            of_known: Crowd::new(PLACES_OF_KNOWN),
            of_others: Crowd::new(places_of_others(AT_ONCE_MAX)),
            meter: Meter::new("dynamodb", Role::AppManager),
            defaults: watch::Sender::new(defaults),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    pub(super) fn places(&self) -> usize {
        places_of_others(AT_ONCE_MAX)
    }

    pub(super) fn timeout(&self) -> Duration {
        self.shared.setup.place.timeout
    }

    pub fn reload(&self, config: &Config) {
        let defaults = Arc::new(config.app_manager.app_defaults.clone());
        self.shared.defaults.send_replace(defaults);
    }

    pub async fn find(self, name: AppName) -> Result<Option<App>, StoreError> {
        let asked = name.as_str();
        if !may_be_a_name(asked) {
            return Ok(None);
        }
        let crowd = &self.shared.of_others;
        let found = match name {
            AppName::Id(_) => self.within(crowd, self.by_id(asked)).await?,
            AppName::Key(_) => self.within(crowd, self.by_key(asked)).await?,
        };
        let column = match name {
            AppName::Id(_) => "id",
            AppName::Key(_) => "key",
        };
        found::the_only_one(found, column, asked)
    }

    pub async fn find_all(self, ids: Vec<Box<str>>) -> Result<FoundApps, StoreError> {
        let mut all = Vec::with_capacity(ids.len());
        let crowd = &self.shared.of_known;
        if ids.is_empty() {
            // Whether it is there: no app has this name.
            self.within(crowd, self.by_id(" ")).await?;
        }
        let mut ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
        ids.retain(|id| may_be_a_name(id));
        // A batch with a double is refused.
        ids.sort_unstable();
        ids.dedup();
        for ids in ids.chunks(IDS_PER_BATCH) {
            all.extend(self.within(crowd, self.by_ids(ids)).await?);
        }
        Ok(FoundApps::of(all))
    }

    async fn by_id(&self, id: &str) -> Result<Vec<Found>, Failed> {
        let Shared { setup, client, .. } = &*self.shared;
        let asked = client
            .get_item()
            .table_name(&setup.table)
            .key(setup.names.id, AttributeValue::S(id.to_owned()))
            .send();
        let answer = asked.await?;
        Ok(self.apps(answer.item, setup.names.id, &[id]))
    }

    async fn by_key(&self, key: &str) -> Result<Vec<Found>, Failed> {
        let Shared { setup, client, .. } = &*self.shared;
        let Names {
            key: name, index, ..
        } = setup.names;
        let asked = client
            .query()
            .table_name(&setup.table)
            .index_name(index)
            .key_condition_expression("#key = :key")
            .expression_attribute_names("#key", name)
            .expression_attribute_values(":key", AttributeValue::S(key.to_owned()))
            .limit(ALIKE_MAX)
            .send();
        let answer = asked.await?;
        Ok(self.apps(answer.items.unwrap_or_default(), name, &[key]))
    }

    async fn by_ids(&self, ids: &[&str]) -> Result<Vec<Found>, Failed> {
        let Shared { setup, client, .. } = &*self.shared;
        let name = setup.names.id;
        let mut keys = KeysAndAttributes::builder();
        for id in ids {
            keys = keys.keys([(name.to_owned(), AttributeValue::S((*id).to_owned()))].into());
        }
        let mut wanted = Some(keys.build()?);
        let mut all = Vec::with_capacity(ids.len());
        // What a batch leaves out, for its size or the table's throughput, is asked for again.
        for _ in 0..ROUNDS_MAX {
            let Some(keys) = wanted.take() else {
                return Ok(all);
            };
            let asked = client.batch_get_item().request_items(&setup.table, keys);
            let mut answer = asked.send().await?;
            let items = answer
                .responses
                .as_mut()
                .and_then(|it| it.remove(&setup.table));
            all.extend(self.apps(items.unwrap_or_default(), name, ids));
            let left = answer.unprocessed_keys.as_mut();
            wanted = left.and_then(|it| it.remove(&setup.table));
        }
        match wanted {
            None => Ok(all),
            Some(_) => Err(Failed::LeftOut),
        }
    }

    /// Those items whose attribute is one of the wanted.
    fn apps<I>(
        &self,
        items: impl IntoIterator<Item = I>,
        attribute: &str,
        wanted: &[&str],
    ) -> Vec<Found>
    where
        I: IntoIterator<Item = (String, AttributeValue)>,
    {
        let names = self.shared.setup.names;
        let defaults = Arc::clone(&self.shared.defaults.borrow());
        let app = |attributes: I| {
            let item = item::Item::of(attributes, names);
            let is_wanted = item.text(attribute).is_some_and(|it| wanted.contains(&it));
            is_wanted.then(|| found::app(item.id(), item.record(), &defaults))
        };
        items.into_iter().filter_map(app).collect()
    }

    /// No retry, neither ours nor the SDK's, goes beyond it.
    async fn within<T>(
        &self,
        crowd: &Crowd,
        question: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, StoreError> {
        let setup = &self.shared.setup;
        let asked = timeout(setup.place.timeout, async {
            let _place = crowd.enter().await.map_err(|_| Failed::Crowded)?;
            question.await
        });
        let answer = asked.await.unwrap_or(Err(Failed::Late));
        answer.map_err(|failed| fault::down(&failed, setup))
    }
}

/// The service's own bound of a batch.
const IDS_PER_BATCH: usize = 100;
const ROUNDS_MAX: usize = 5;
/// Connections to the service.
const AT_ONCE_MAX: usize = 32;
/// An index takes any number of items with one key.
const ALIKE_MAX: i32 = 8;
