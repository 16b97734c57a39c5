use std::pin::Pin;
use std::sync::OnceLock;

use avout_core::{Atom, Error, ErrorKind, Ref, Result, Tx};

use super::program::{Setting, Step};
use super::record::{Handle, Recorder};
use crate::history::Operation;

/// What a client has open.
pub(super) struct Refs {
    pub(super) lists: Vec<Ref<Vec<u64>>>,
    pub(super) registers: Vec<Ref<u64>>,
    /// Empty as long as the client has not found it or made it.
    pub(super) volatile: OnceLock<Ref<u64>>,
    pub(super) atom: Option<Atom<Vec<u64>>>,
}

/// One transaction's body, which writes down what it does.
pub(super) struct Body<'a> {
    pub(super) refs: &'a Refs,
    pub(super) setting: &'a Setting,
    pub(super) recorder: &'a Recorder,
    pub(super) handle: Handle,
}

impl Body<'_> {
    pub(super) async fn run(&self, tx: &Tx, steps: &[Step]) -> Result<()> {
        for step in steps {
            self.step(tx, step).await?;
        }
        Ok(())
    }

    fn push(&self, operations: impl IntoIterator<Item = Operation>) {
        self.recorder.push(self.handle, operations);
    }

    async fn read(&self, tx: &Tx, list: usize, ensure: bool) -> Result<usize> {
        let list = &self.refs.lists[list];
        let elements = if ensure { tx.ensure(list).await? } else { tx.get(list).await? };
        let length = elements.len();
        self.push([Operation::read_list(list.key().as_str(), elements)]);
        Ok(length)
    }

    async fn step(&self, tx: &Tx, step: &Step) -> Result<()> {
        // Under `Serializable` a get is protected as it is.
        let ensure = self.setting.ensures_all && self.setting.isolation != avout_core::Isolation::Serializable;
        match step {
            Step::Append(list, element) => {
                let list = &self.refs.lists[*list];
                let append = |elements: &mut Vec<u64>| {
                    let before = elements.clone();
                    elements.push(*element);
                    before
                };
                let before = tx.update(list, append).await?;
                let key = list.key().as_str();
                self.push([Operation::read_list(key, before), Operation::append(key, *element)]);
            }
            Step::Commute(list, element) => {
                let (list, element) = (&self.refs.lists[*list], *element);
                let append = move |mut elements: Vec<u64>| {
                    elements.push(element);
                    elements
                };
                tx.commute(list, append).await?;
                self.push([Operation::append(list.key().as_str(), element)]);
            }
            Step::Read(list) => drop(self.read(tx, *list, ensure).await?),
            Step::Ensure(list) => drop(self.read(tx, *list, true).await?),
            Step::ReadBoth(first, second) => {
                let lists = (&self.refs.lists[*first], &self.refs.lists[*second]);
                let (one, two) = tx.get_many(lists).await?;
                self.push([
                    Operation::read_list(lists.0.key().as_str(), one),
                    Operation::read_list(lists.1.key().as_str(), two),
                ]);
                if ensure {
                    tx.ensure(lists.0).await?;
                    tx.ensure(lists.1).await?;
                }
            }
            Step::Prefetch(list) => tx.prefetch((&self.refs.lists[*list],)).await?,
            Step::Get(register) => {
                let register = &self.refs.registers[*register];
                let value = if ensure { tx.ensure(register).await? } else { tx.get(register).await? };
                // 0 is what it was made with.
                self.push([Operation::read(register.key().as_str(), Some(value).filter(|value| *value != 0))]);
            }
            Step::Set(register, value) => {
                let register = &self.refs.registers[*register];
                tx.set(register, *value).await?;
                self.push([Operation::write(register.key().as_str(), *value)]);
            }
            Step::GetVolatile | Step::SetVolatile(_) | Step::Destroy => self.volatile(tx, step, ensure).await?,
            Step::Wait(list, length) => {
                if self.read(tx, *list, ensure).await? < *length {
                    return Err(tx.retry());
                }
            }
            Step::OrElse(first, second) => self.or_else(tx, first, second).await?,
            Step::Yield => tokio::task::yield_now().await,
        }
        Ok(())
    }

    async fn volatile(&self, tx: &Tx, step: &Step, ensure: bool) -> Result<()> {
        let Some(volatile) = self.refs.volatile.get() else {
            return Ok(());
        };
        let key = volatile.key().as_str();
        match step {
            Step::SetVolatile(value) => {
                tx.set(volatile, *value).await?;
                self.push([Operation::write(key, *value)]);
            }
            Step::Destroy => {
                tx.destroy(volatile).await?;
                self.push([Operation::write(key, None)]);
            }
            _ => {
                let read = if ensure { tx.ensure(volatile).await } else { tx.get(volatile).await };
                let value = match read {
                    Ok(value) => Some(value).filter(|value| *value != 0),
                    Err(error) if error.kind() == ErrorKind::NotFound => None,
                    Err(error) => return Err(error),
                };
                self.push([Operation::read(key, value)]);
            }
        }
        Ok(())
    }

    fn or_else<'f>(
        &'f self,
        tx: &'f Tx,
        first: &'f [Step],
        second: &'f [Step],
    ) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'f>> {
        Box::pin(async move {
            let mark = self.recorder.mark(self.handle);
            tx.or_else(
                async |tx| self.run(&tx, first).await,
                async |tx| {
                    self.recorder.undo(self.handle, mark);
                    self.run(&tx, second).await
                },
            )
            .await
        })
    }
}
