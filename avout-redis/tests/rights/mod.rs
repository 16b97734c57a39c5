//! The rights that docs/backends.md lists, as arguments of `ACL SETUSER` after the user's name.

/// Those that are listed for `user`, in this namespace and with this password.
pub(crate) fn of(user: &str, namespace: &str, password: &str) -> Vec<String> {
    const DOCS: &str = include_str!("../../../docs/backends.md");
    let (_, rest) = DOCS.split_once(&format!("ACL SETUSER {user} ")).expect("docs/backends.md lists the rights");
    let (rights, _) = rest.split_once("```").expect("the list has an end");
    let own = |right: &str| right.replace("shop", namespace).replace(">secret", &format!(">{password}"));
    rights.split_whitespace().map(own).collect()
}
