//! The rights that docs/backends.md lists.

use avout_mongo::mongodb::bson::{Document, doc};

/// The command that makes a role with the rights that are listed for a role, in a namespace of a database.
pub(crate) fn role(listed: &str, name: &str, database: &str, namespace: &str) -> Document {
    const DOCS: &str = include_str!("../../../docs/backends.md");
    let begin = format!("createRole({{\n  \"role\": \"{listed}\",");
    let (_, rest) = DOCS.split_once(&begin).expect("docs/backends.md lists the rights");
    let (rest, _) = rest.split_once(")\n```").expect("the list has an end");
    let role = format!("{{{rest}");
    let own = role.replace("\"shop\"", &format!("\"{database}\"")).replace("\"orders.", &format!("\"{namespace}."));
    let role: Document = serde_json::from_str(&own).expect("it is JSON");
    doc! { "createRole": name, "privileges": role.get_array("privileges").expect("it has some"), "roles": [] }
}
