import re, os, shutil, sys
src, dst = sys.argv[1], sys.argv[2]
shutil.rmtree(dst, ignore_errors=True); os.makedirs(dst)
R=lambda p: open(os.path.join(src,p)).read()
def W(p, s):
    p=os.path.join(dst,p); os.makedirs(os.path.dirname(p),exist_ok=True)
    open(p,'w').write(s.strip()+'\n')
def between(s,a,b=None):
    i=s.index(a); j=s.index(b,i) if b else len(s)
    return s[i:j]
MAP={'connection':'wire::connection','file':'wire::file','error':'wire::error','readers':'wire::readers','log':'wire::log','faults':'wire::faults',
 'clock':'schema::clock','schema':'schema::tables','history':'coordinator::history','outcome':'coordinator::outcome','known':'coordinator::known','records':'coordinator::read',
 'here':'client::here','work':'writer::work','poller':'watch::poller'}
def paths(s):
    def sub(m):
        return 'crate::'+MAP.get(m.group(1),m.group(1))+m.group(2)
    s=re.sub(r'crate::([a-z_]+)(\b)',sub,s)
    s=s.replace('crate::watch::{Change, Spot, Table}','crate::watch::hub::{Change, Spot, Table}').replace('crate::watch::{Change, Table}','crate::watch::hub::{Change, Table}').replace('crate::watch::Change','crate::watch::hub::Change').replace('crate::watch::Hub','crate::watch::hub::Hub')
    s=s.replace('crate::watch::{RefWatcher, Registration, Table}','crate::watch::{RefWatcher, Registration, Table}')
    s=s.replace('use crate::coordinator::read::{self','use crate::coordinator::read as records;\nuse crate::coordinator::read::{') if False else s
    return s
plain={'connection.rs':'wire/connection.rs','error.rs':'wire/error.rs','readers.rs':'wire/readers.rs','log.rs':'wire/log.rs','faults.rs':'wire/faults.rs',
 'clock.rs':'schema/clock.rs','schema.rs':'schema/tables.rs','history.rs':'coordinator/history.rs','outcome.rs':'coordinator/outcome.rs','known.rs':'coordinator/known.rs',
 'records.rs':'coordinator/read.rs','here.rs':'client/here.rs','work.rs':'writer/work.rs','poller.rs':'watch/poller.rs'}
out={}
for a,b in plain.items(): out[b]=paths(R(a))
# records -> coordinator::read: users say `records::`, rename to `read::`
def renamed(s):
    s=s.replace('crate::coordinator::read::{self, ','crate::coordinator::read::{self, ').replace('records::','read::')
    return s
# history: `schema::has_removed` -> tables
out['coordinator/history.rs']=out['coordinator/history.rs'].replace('use crate::schema::tables;','use crate::schema::tables;').replace('schema::has_removed','tables::has_removed')
out['watch/poller.rs']=renamed(out['watch/poller.rs']).replace('use crate::coordinator::read;','use crate::coordinator::read;')
# file.rs -> wire/file.rs and wire/place.rs
f=R('file.rs')
W_file=paths(f)
out['wire/file.rs']=W_file
# watch.rs
w=R('watch.rs')
i=w.index('/// Keys that are watched, until it is dropped.')
hub=w[:i]
hub=hub[hub.index('/// Where a key that is watched lies.'):]
out['watch/hub.rs']='''use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use avout_core::backend::Wake;
use avout_core::backend::time::from_others;
use avout_core::protocol::Key;
use tokio::sync::Notify;

use crate::schema::clock::Stamp;

'''+hub.replace('fn add(&self','pub(super) fn add(&self').replace('fn remove(&self','pub(super) fn remove(&self').replace('fn is_closed(','pub(super) fn is_closed(').rstrip()+'''

impl Signal {
    /// Waits until it rings. A wait that is dropped after it was woken gives the wake-up back.
    pub(super) async fn rung(&self) {
        from_others(self.bell.notified()).await;
    }

    /// Why it rang last.
    pub(super) fn why(&self) -> Wake {
        if self.lost.swap(false, Ordering::AcqRel) { Wake::Lost } else { Wake::Changed }
    }
}
'''
reg=w[i:]
reg=reg.replace('''        // A `Notified` that is dropped after it was woken gives the wake-up back, and nothing is awaited after it.
        from_others(self.signal.bell.notified()).await;
''','''        // Nothing is awaited after it.
        self.signal.rung().await;
''').replace('''Ok(if self.signal.lost.swap(false, Ordering::AcqRel) { Wake::Lost } else { Wake::Changed })''','Ok(self.signal.why())')
j=reg.index('/// The watcher of some keys')
out['watch/registration.rs']='''use std::sync::Arc;

use avout_core::Result;
use avout_core::backend::Wake;

use super::hub::{Signal, Spot};
use crate::client::{Client, closed};

'''+reg[:j]
out['coordinator/watch.rs']='''use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{Wake, Watcher};

use crate::watch::Registration;

'''+reg[j:]
out['watch/mod.rs']='''//! Who waits for changes of what: of this client's own and of others'.

pub(crate) mod hub;
pub(crate) mod poller;
mod registration;

pub(crate) use registration::Registration;
'''
# container.rs -> store
c=R('container.rs')
store=between(c,'/// Keeps the states of atoms','/// The bytes of a state')
bytes_=between(c,'/// The bytes of a state','const READ_ATOM')
ra=between(c,'const READ_ATOM','const READ_VALUE'); rv=between(c,'const READ_VALUE','struct Atom {')
atoms=between(c,'struct Atom {','struct Values {'); values=between(c,'struct Values {')
out['store/mod.rs']=paths('''//! Atoms, and the values of refs that are too large for their records.

mod atoms;
mod bytes;
mod values;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, Kind, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Key, Realm};

use crate::client::Client;
use crate::records::Keys;
use atoms::Atom;
use values::Values;

'''+store)
out['store/bytes.rs']=paths('''use avout_core::protocol::State;
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension};

use crate::client::MAX_BYTES;
use crate::clock::Stamp;
use crate::error::classify;

'''+bytes_.replace('\nfn bytes_of','\npub(super) fn bytes_of').replace('\nfn limited','\npub(super) fn limited'))
vis=lambda s: s.replace('struct Atom {\n    client:','/// The state of an atom.\npub(super) struct Atom {\n    pub(super) client:').replace('    key: Key,\n}\n\nimpl Atom','    pub(super) key: Key,\n}\n\nimpl Atom').replace('struct Values {\n    client:','/// The values of a ref.\npub(super) struct Values {\n    pub(super) client:').replace('    key: Key,\n}\n\nimpl Values','    pub(super) key: Key,\n}\n\nimpl Values')
out['store/atoms.rs']=renamed(paths('''use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{CasOutcome, StateContainer};
use avout_core::protocol::{Key, Revision, State};
use bytes::Bytes;
use rusqlite::{Connection, params};

use super::bytes::{bytes_of, limited};
use crate::client::Client;
use crate::clock::Stamp;
use crate::records;
use crate::error::classify;
use crate::watch::hub::Table;
use crate::watch::{Registration, poller};
use crate::work::{Batch, Work};

'''+ra+'\n'+vis(atoms)))
out['store/values.rs']=paths('''use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::VersionedStateContainer;
use avout_core::protocol::{Key, State, Version};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use rusqlite::{Connection, params};

use super::bytes::{bytes_of, limited};
use crate::client::Client;
use crate::error::classify;
use crate::work::{Batch, Work};

'''+rv+'\n'+vis(values))
# coordinator
k=R('coordinator.rs')
i=k.index('impl Coordinator {\n    async fn send'); 
coord=k[k.index('/// Orders commits with'):i]
send=between(k,'impl Coordinator {\n    async fn send','/// A commit as the writer takes it')
rest=between(k,'/// A commit as the writer takes it')
out['coordinator/mod.rs']=renamed(paths('''//! Orders commits, and reads records.

mod commit;
pub(crate) mod history;
pub(crate) mod known;
pub(crate) mod outcome;
pub(crate) mod read;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, CoordinatorCapabilities, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Key, Point, Resolution, Snapshot};
use bytes::Bytes;
use rusqlite::Connection;

use crate::client::Client;
use crate::watch::hub::Table;
use crate::watch::{Registration, poller};
use outcome::Receipt;
use read::{Keys, SMALL_READ};
use watch::RefWatcher;

'''+coord.replace('self.send(commit).await','commit::send(&self.client, commit).await')))
send=send.replace('impl Coordinator {\n    async fn send(&self, commit: &Commit)','/// Has a commit made, and tells how it ended.\npub(super) async fn send(client: &Arc<Client>, commit: &Commit)').replace('self.client','client')
send=re.sub(r'\n}\n\s*$','\n',send)
send='\n'.join(l[4:] if l.startswith('    ') else l for l in send.split('\n'))
out['coordinator/commit.rs']=renamed(paths('''use std::sync::Arc;

use avout_core::protocol::{Commit, CommitOutcome, Committed, Conflict, Key, Record};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use rusqlite::{Connection, params};

use super::known::Kept;
use super::read::{self, RawSnapshot, SMALL_READ};
use crate::client::{Client, MAX_BYTES, Shared};
use crate::clock::{self, Clock, Stamp};
use crate::error::classify;
use crate::watch::hub::Table;
use crate::work::{Batch, Conflicts, Work};

'''+send+'\n'+rest))
# client
l=R('client.rs')
shared=between(l,'/// The largest record, value or commit.','/// The largest value that is read')+between(l,'/// What the threads of one client','/// One client of a file')
out['client/shared.rs']=paths('''use std::sync::atomic::{AtomicU64, Ordering};

use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::here::Open;
use crate::clock::Clock;
use crate::connection::{connect, patiently};
use crate::error::classify;
use crate::file::File;
use crate::history::{self, History};
use crate::known::Known;
use crate::options::Options;
use crate::schema;
use crate::watch::hub::Hub;

'''+shared).replace('schema::realm','tables::realm')
opening=between(l,'pub(crate) async fn open(options','impl Client {\n    fn new(')
L=R('lib.rs')
pubs=between(L,'/// Opens the file at `path`, or makes it.')
O=R('options.rs')
oo=between(O,'\n    /// Opens the file: see [`open`]','\n}\n\n/// As [`Options::from_url`]')
out['open.rs']=paths('''use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::client::{Client, Shared, told};
use crate::clock::Name;
use crate::connection::connect;
use crate::error::with_path;
use crate::file::{File, forbidden};
use crate::options::{Options, Place};
use crate::writer::{self, Writer};
use crate::{Coordinator, Store, schema};

'''+pubs.rstrip()+'\n\nimpl Options {'+oo.replace('crate::client::open(self)','open_client(self)')+'\n}\n\n'+opening.replace('pub(crate) async fn open(options','async fn open_client(options')).replace('schema::prepare(','tables::prepare(')
out['open.rs']=out['open.rs'].replace('use crate::{Coordinator, Store, schema::tables};','use crate::schema::tables;\nuse crate::{Coordinator, Store};').replace('use crate::{Coordinator, Store, schema};','use crate::schema::tables;\nuse crate::{Coordinator, Store};')
out['options.rs']=paths(O.replace(oo,'').replace('use crate::Backend;\n\n','').replace('\n\n\n}','\n}'))
st=between(l,'/// One client of a file','pub(crate) async fn open(options')
new=between(l,'impl Client {\n    fn new(','    /// Reads with `f`,')
rd=between(l,'    /// Reads with `f`,','    /// Ends the threads and closes')
end=between(l,'    /// Ends the threads and closes','/// A read by the writer')
reading=between(l,'/// A read by the writer')
st=re.sub(r'\n    (queue|writer|readers): ',r'\n    pub(super) \1: ',st)
out['client/handle.rs']=paths('''use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use avout_core::backend::history::Losses;
use avout_core::backend::time::HeldClock;
use avout_core::backend::{CoordinatorCapabilities, StoreCapabilities};
use avout_core::protocol::Resolution;
use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{oneshot, watch};

use super::shared::{MAX_BYTES, Shared};
use crate::options::Synchronous;
use crate::readers::Readers;
use crate::work::{Job, Pending, Work};
use crate::writer::{Message, SharedWriter};

'''+st+new.replace('impl Client {\n    fn new(','impl Client {\n    pub(crate) fn new(').replace('avout_core::protocol::Resolution>','Resolution>').replace('Result<avout_core','Result<avout_core')+end).replace('async fn told<','pub(crate) async fn told<')
rdk=between(rd,'    /// Where losses are reported.','    /// Reads with the writer')
rd=rd.replace(rdk,'')
out['client/handle.rs']=out['client/handle.rs'].replace('    /// Ends the threads and closes',rdk+'    /// Ends the threads and closes')
out['client/read.rs']=paths('''use std::sync::{Arc, Mutex, PoisonError};

use avout_core::backend::tasks;
use avout_core::protocol::Key;
use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::handle::Client;
use crate::clock;
use crate::connection::{patiently, roll_back};
use crate::error::classify;
use crate::records::{self, Keys};
use crate::work::{Batch, Work};

/// The largest value that is read on the thread of the caller.
const INLINE_READ: usize = 64 << 10;

impl Client {
'''+rd.rstrip()+'\n}\n\n'+reading)
out['client/read.rs']=renamed(out['client/read.rs'])
out['client/mod.rs']='''//! What the coordinator, the store, their containers and watchers of one client share.

mod handle;
pub(crate) mod here;
mod read;
mod shared;

pub(crate) use handle::{Client, closed, told};
pub(crate) use shared::{MAX_BYTES, Shared};
'''
# writer
wr=R('writer.rs')
msg=between(wr,'/// What is seldom sent lies','/// How a batch ended that was not')
consts=between(wr,'/// The most requests in one SQLite','/// After so many requests without')
bconsts=between(wr,'/// After so many requests without','/// What is seldom sent')
types=between(wr,'/// How a batch ended that was not','/// A writer, and where it is found')
sharedw=between(wr,'/// A writer, and where it is found','/// A COMMIT that failed on the thread')
uns=between(wr,'/// A COMMIT that failed on the thread','/// Works until it is told')
serve=between(wr,'/// Works until it is told','impl Writer {\n    pub(crate) fn new')
impl=between(wr,'impl Writer {\n    pub(crate) fn new','/// The jobs that wait, within')
gather=between(wr,'/// The jobs that wait, within','fn fail(')
fail=between(wr,'fn fail(','#[cfg(test)]\nmod tests;')
out['writer/thread.rs']=paths('''use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};

use avout_core::Result;
use avout_core::protocol::Resolution;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::batch::Writer;
use super::work::Job;
use crate::outcome::Receipt;

'''+consts+msg+sharedw+serve+gather)
def pubfields(s):
    s=re.sub(r'\n(struct|enum) ',r'\npub(super) \1 ',s)
    s=re.sub(r'^(struct|enum) ',r'pub(super) \1 ',s)
    out=[]; instruct=False
    for line in s.split('\n'):
        if re.match(r'pub\((super|crate)\) struct .*\{$',line): instruct=True
        elif line=='}': instruct=False
        elif instruct and re.match(r'    [a-z_]+: ',line): line='    pub(super) '+line.strip()
        out.append(line)
    return '\n'.join(out)
for fn in ['finish','batch','tidy','end','answer','ready','check','rename']:
    impl=impl.replace('    fn %s('%fn,'    pub(super) fn %s('%fn)
out['writer/batch.rs']=paths('''use std::sync::Arc;
use std::time::{Duration, Instant};

use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::work::{Batch, Conflicts, Job};
use crate::client::Shared;
use crate::client::here::Pace;
use crate::clock::{self, Clock, Name};
use crate::connection::{patiently, roll_back, run};
use crate::error::{classify, copies};
use crate::file::Lengths;
use crate::known::Kept;
use crate::log::Log;
use crate::schema;
use crate::watch::hub::Change;

'''+bconsts.replace('const CALM','pub(super) const CALM')+pubfields(types+uns)+impl+fail).replace('schema::add_writer','tables::add_writer')
u=R('writer/unsettled.rs')
out['writer/unsettled.rs']=paths(u).replace('use super::{Applied, Ended, Failure, Unsettled, Writer};','use super::batch::{Applied, Ended, Failure, Unsettled, Writer};\nuse super::work::Job;').replace('use crate::writer::work::Job;\n','')
out['writer/mod.rs']='''//! The thread that owns the connection which writes.

mod batch;
mod thread;
mod unsettled;
pub(crate) mod work;

#[cfg(test)]
mod tests;

pub(crate) use batch::Writer;
pub(crate) use thread::{Message, SharedWriter, serve};
'''
out['writer/tests.rs']=paths(R('writer/tests.rs')).replace('use crate::writer::CALM;','use crate::writer::batch::CALM;')
out['schema/mod.rs']='''//! What is in the file.

pub(crate) mod clock;
pub(crate) mod tables;
'''
out['schema/tables.rs']=out['schema/tables.rs'].replace('//! What is in the file.','//! The tables, and how they are made and upgraded.')
out['wire/mod.rs']='''//! The driver: connections, the file that they are to, and what its errors mean.

pub(crate) mod connection;
pub(crate) mod error;
#[cfg(test)]
pub(crate) mod faults;
pub(crate) mod file;
pub(crate) mod log;
pub(crate) mod readers;
'''
head=L[:L.index('mod client;')]
out['lib.rs']=head+'''mod client;
mod coordinator;
mod open;
mod options;
mod schema;
mod store;
mod watch;
mod wire;
mod writer;

pub use coordinator::Coordinator;
pub use open::{Backend, connect, open};
pub use options::{Options, Synchronous};
pub use rusqlite;
pub use store::Store;
'''
for p,s in out.items(): W(p,s)
