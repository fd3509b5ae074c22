//! The table of apps for who changes it: every item, nothing in the background.
//!
//! Owns: the calls that write, and the table that is made.
//! May depend on: `dynamodb::{setup, item, fault}`, `serde_json`, tokio, the crate `aws-sdk-dynamodb`.
//! Invariants: an item is written only if it is there, or is not, as the call says; a key that another item has is refused,
//! as far as the index knows by then; a table that exists is altered by `add_index` only.

use std::time::Duration;

use aws_sdk_dynamodb::{
    Client,
    error::BuildError,
    types::{
        AttributeDefinition, AttributeValue, BillingMode, CreateGlobalSecondaryIndexAction,
        GlobalSecondaryIndex, GlobalSecondaryIndexUpdate, IndexStatus, KeySchemaElement, KeyType,
        Projection, ProjectionType, ScalarAttributeType, TableDescription, TableStatus,
    },
};
use serde_json::{Map, Value as Json};
use tokio::{
    runtime::{Builder, Runtime},
    time::{Instant, sleep},
};

use super::{
    super::{RowsError, Standing, StoreError, StoreSetupError},
    fault::{self, Failed},
    item::{self, Item},
    setup::DynamodbSetup,
};
use crate::{config::Config, metrics::backend::Fault};

/// A table that is there.
struct Described {
    has_index: bool,
    /// The table and its index.
    is_usable: bool,
}

#[derive(Debug)]
pub struct DynamodbRows {
    setup: DynamodbSetup,
    client: Client,
    runtime: Runtime,
}

impl DynamodbRows {
    pub fn open(config: &Config) -> Result<Result<Self, StoreError>, StoreSetupError> {
        let setup = DynamodbSetup::of(config);
        let client = setup.client()?;
        let runtime = Builder::new_current_thread().enable_all().build();
        Ok(match runtime {
            Ok(runtime) => Ok(Self {
                setup,
                client,
                runtime,
            }),
            Err(error) => Err(StoreError::Down(format!("no runtime: {error}"), Fault::Io)),
        })
    }

    /// Every item as a record, by id; one that cannot be read is a fault beside its id.
    pub fn list(
        &mut self,
        mut each: impl FnMut(Result<Map<String, Json>, (String, String)>),
    ) -> Result<(), RowsError> {
        let listed = self.runtime.block_on(self.scan());
        let mut items = listed.map_err(|failed| self.down(&failed))?;
        items.sort_by(|one, other| one.id().cmp(other.id()));
        for item in &items {
            let record = item.record();
            each(record.map_err(|fault| (item.id().to_owned(), fault)));
        }
        Ok(())
    }

    async fn scan(&self) -> Result<Vec<Item>, Failed> {
        let mut all = Vec::new();
        let mut from = None;
        loop {
            let scan = self.client.scan().table_name(&self.setup.table);
            let page = scan.set_exclusive_start_key(from).send().await?;
            let items = page.items.unwrap_or_default();
            all.extend(items.into_iter().map(|it| Item::of(it, self.setup.names)));
            from = page.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() {
                return Ok(all);
            }
        }
    }

    /// The item of an id.
    pub fn read(&mut self, id: &str) -> Result<Option<Map<String, Json>>, RowsError> {
        // The service takes no empty one.
        if id.is_empty() {
            return Ok(None);
        }
        let asked = self.client.get_item().table_name(&self.setup.table);
        let asked = asked
            .key(self.setup.names.id, AttributeValue::S(id.to_owned()))
            .consistent_read(true);
        let answer = self.run(async { Ok(asked.send().await?) })?;
        let Some(attributes) = answer.item else {
            return Ok(None);
        };
        let record = Item::of(attributes, self.setup.names).record();
        let record = record.map_err(|fault| StoreError::Malformed {
            id: id.to_owned(),
            faults: vec![fault],
            stand_in: None,
        });
        Ok(Some(record?))
    }

    /// A new item of what was given; an attribute that is missing says nothing, so nothing else is needed.
    pub fn insert(&mut self, given: &Map<String, Json>) -> Result<(), RowsError> {
        let names = self.setup.names;
        self.is_free(given.get("key"), given.get("id"))?;
        let mut put = self.client.put_item().table_name(&self.setup.table);
        for (key, value) in given {
            if let Some(value) = item::value(key, value) {
                put = put.item(names.attribute(key), value);
            }
        }
        let put = put
            .condition_expression("attribute_not_exists(#id)")
            .expression_attribute_names("#id", names.id);
        self.write(async { Ok(put.send().await.map(drop)?) })
    }

    /// Changes attributes of the item of an id; null takes one away.
    pub fn update(&mut self, id: &str, changes: &Map<String, Json>) -> Result<(), RowsError> {
        let names = self.setup.names;
        self.is_free(changes.get("key"), Some(&id.into()))?;
        let mut update = self
            .client
            .update_item()
            .table_name(&self.setup.table)
            .key(names.id, AttributeValue::S(id.to_owned()))
            .condition_expression("attribute_exists(#id)")
            .expression_attribute_names("#id", names.id);
        let (mut set, mut removed) = (Vec::new(), Vec::new());
        // An item's own key cannot be changed, and is as it was.
        let changes = changes.iter().filter(|(key, _)| *key != "id");
        for (at, (key, value)) in changes.enumerate() {
            update = update.expression_attribute_names(format!("#a{at}"), names.attribute(key));
            match item::value(key, value) {
                Some(value) => {
                    set.push(format!("#a{at} = :v{at}"));
                    update = update.expression_attribute_values(format!(":v{at}"), value);
                }
                None => removed.push(format!("#a{at}")),
            }
        }
        let mut expression = String::new();
        for (verb, parts) in [("SET", set), ("REMOVE", removed)] {
            if !parts.is_empty() {
                expression += &format!("{verb} {} ", parts.join(", "));
            }
        }
        if expression.is_empty() {
            return Ok(());
        }
        let update = update.update_expression(expression.trim_end());
        self.write(async { Ok(update.send().await.map(drop)?) })
    }

    pub fn remove(&mut self, id: &str) -> Result<(), RowsError> {
        let remove = self.client.delete_item().table_name(&self.setup.table);
        let remove = remove.key(self.setup.names.id, AttributeValue::S(id.to_owned()));
        self.write(async { Ok(remove.send().await.map(drop)?) })
    }

    pub(in super::super) fn make(&mut self) -> Result<(), RowsError> {
        self.run(self.make_table())
    }

    pub(in super::super) fn look(&mut self) -> Result<Standing, RowsError> {
        let described = self.runtime.block_on(self.describe());
        let described = match described {
            Err(failed) if failed.is("ResourceNotFoundException") => return Ok(Standing::Missing),
            described => described.map_err(|failed| self.down(&failed))?,
        };
        Ok(match described.has_index {
            true => Standing::Whole,
            false => Standing::Lacks(self.index_command()),
        })
    }

    async fn describe(&self) -> Result<Described, Failed> {
        let asked = self.client.describe_table().table_name(&self.setup.table);
        let table = asked.send().await?.table;
        let mut indexes = table.iter().flat_map(|it| it.global_secondary_indexes());
        let index = indexes.find(|it| it.index_name() == Some(self.setup.names.index));
        let is_active = |it: &TableDescription| it.table_status == Some(TableStatus::Active);
        Ok(Described {
            has_index: index.is_some(),
            is_usable: table.as_ref().is_some_and(is_active)
                && index.is_some_and(|it| it.index_status == Some(IndexStatus::Active)),
        })
    }

    async fn make_table(&self) -> Result<(), Failed> {
        let names = self.setup.names;
        let make = self
            .client
            .create_table()
            .table_name(&self.setup.table)
            .attribute_definitions(text_attribute(names.id)?)
            .attribute_definitions(text_attribute(names.key)?)
            .key_schema(hash_key(names.id)?)
            .global_secondary_indexes(
                GlobalSecondaryIndex::builder()
                    .index_name(names.index)
                    .key_schema(hash_key(names.key)?)
                    .projection(whole_items())
                    .build()?,
            )
            .billing_mode(BillingMode::PayPerRequest);
        make.send().await?;
        self.until_usable("the new table is still being made").await
    }

    /// Gives a table that is there its index, which fills beside what goes on.
    pub fn add_index(&mut self) -> Result<(), RowsError> {
        self.run(self.make_index())
    }

    async fn make_index(&self) -> Result<(), Failed> {
        let names = self.setup.names;
        let create = CreateGlobalSecondaryIndexAction::builder()
            .index_name(names.index)
            .key_schema(hash_key(names.key)?)
            .projection(whole_items());
        let update = GlobalSecondaryIndexUpdate::builder().create(create.build()?);
        let asked = self
            .client
            .update_table()
            .table_name(&self.setup.table)
            .attribute_definitions(text_attribute(names.key)?)
            .global_secondary_index_updates(update.build());
        asked.send().await?;
        self.until_usable("the table's new index is still being made")
            .await
    }

    async fn until_usable(&self, late: &str) -> Result<(), Failed> {
        let until = Instant::now() + MADE_WITHIN;
        while !self.describe().await?.is_usable {
            if Instant::now() > until {
                return Err(Failed::Unasked(late.to_owned()));
            }
            sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    fn index_command(&self) -> String {
        let (table, names) = (&self.setup.table, self.setup.names);
        let (key, index) = (names.key, names.index);
        format!(
            "aws dynamodb update-table --table-name {table} \\\n  \
             --attribute-definitions AttributeName={key},AttributeType=S \\\n  \
             --global-secondary-index-updates '[{{\"Create\": {{\"IndexName\": \"{index}\", \
             \"KeySchema\": [{{\"AttributeName\": \"{key}\", \"KeyType\": \"HASH\"}}], \
             \"Projection\": {{\"ProjectionType\": \"ALL\"}}}}}}]'"
        )
    }

    /// An index takes any number of items with one key, and both would be refused when somebody looks for it.
    fn is_free(&self, key: Option<&Json>, id: Option<&Json>) -> Result<(), RowsError> {
        let (Some(key), Some(id)) = (key.and_then(Json::as_str), id.and_then(Json::as_str)) else {
            return Ok(());
        };
        let names = self.setup.names;
        let asked = self
            .client
            .query()
            .table_name(&self.setup.table)
            .index_name(names.index)
            .key_condition_expression("#key = :key")
            .expression_attribute_names("#key", names.key)
            .expression_attribute_values(":key", AttributeValue::S(key.to_owned()));
        let found = self.run(async { Ok(asked.send().await?) })?;
        let mut items = found.items.unwrap_or_default().into_iter();
        match items.all(|it| Item::of(it, names).id() == id) {
            true => Ok(()),
            false => Err(RowsError::Taken),
        }
    }

    fn run<T>(&self, call: impl Future<Output = Result<T, Failed>>) -> Result<T, RowsError> {
        let done = self.runtime.block_on(call);
        done.map_err(|failed| self.down(&failed))
    }

    fn write(&self, call: impl Future<Output = Result<(), Failed>>) -> Result<(), RowsError> {
        match self.runtime.block_on(call) {
            Ok(()) => Ok(()),
            Err(failed) if failed.is("ConditionalCheckFailedException") => Err(RowsError::Taken),
            Err(failed) => Err(self.down(&failed)),
        }
    }

    fn down(&self, failed: &Failed) -> RowsError {
        fault::down(failed, &self.setup).into()
    }
}

fn text_attribute(name: &str) -> Result<AttributeDefinition, BuildError> {
    AttributeDefinition::builder()
        .attribute_name(name)
        .attribute_type(ScalarAttributeType::S)
        .build()
}

fn hash_key(name: &str) -> Result<KeySchemaElement, BuildError> {
    KeySchemaElement::builder()
        .attribute_name(name)
        .key_type(KeyType::Hash)
        .build()
}

fn whole_items() -> Projection {
    let all = Projection::builder().projection_type(ProjectionType::All);
    all.build()
}

const MADE_WITHIN: Duration = Duration::from_secs(30);
