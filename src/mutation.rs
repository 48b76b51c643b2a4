//! Mistakes that can be switched on, to see that a test finds each of them.
//!
//! As [`crate::failpoint`], they are there with the feature `faults` only. `HIGHWATER_MUTATION`
//! names the one that is on. A rule in SQL is left out of its migration when that is applied.

#[cfg(feature = "faults")]
pub use active::MUTATIONS;
pub(crate) use active::{PreviousState, in_sql, on};

#[cfg(feature = "faults")]
mod active {
    use std::borrow::Cow;
    use std::sync::LazyLock;

    /// Every mistake, named after the rule that it breaks. Each has a test that fails with it.
    pub const MUTATIONS: &[&str] = &[
        // The fence does not raise where it moved nothing.
        "fence",
        "fence.epoch",
        "fence.position",
        "fence.monotony",
        "fence.parking",
        // COMMIT is sent whatever the state of the transaction is.
        "end_batch",
        // A gap is passed without reading the locks.
        "mark.locks_not_read",
        // The locks were read before the rows.
        "mark.locks_before_rows",
        // The first read of the rows counts as the second one: as if the last snapshot and the
        // second read were one statement.
        "mark.rows_read_once",
        // The second read proves rows that the first one did not see.
        "mark.unseen_rows_proven",
        // Later events of a parked key are applied.
        "parking.followers",
        // A retry takes the last dead letter of a key first.
        "parking.order",
        // A log that went back is accepted.
        "divergence",
    ];

    static NAME: LazyLock<String> =
        LazyLock::new(|| std::env::var("HIGHWATER_MUTATION").unwrap_or_default());

    /// Whether this mistake is switched on.
    pub(crate) fn on(name: &'static str) -> bool {
        *NAME == name
    }

    /// The text of a migration, with the mistake in it if that is one in SQL.
    pub(crate) fn in_sql(text: &str) -> Cow<'_, str> {
        let (rule, without) = match NAME.as_str() {
            "fence" => (
                "into moved;\n    if not found then",
                "into moved;\n    if false then",
            ),
            "fence.epoch" => ("       and c.epoch = fence.epoch\n", ""),
            "fence.position" => ("       and c.position = begin_batch.after\n", ""),
            "fence.monotony" => ("       and begin_batch.through >= c.position\n", ""),
            "fence.parking" => ("       and c.parking = fence.parking\n", ""),
            "end_batch" => (
                "is distinct from end_batch.after
       or batch.through is distinct from end_batch.through then",
                "is null and false then",
            ),
            _ => return Cow::Borrowed(text),
        };
        Cow::Owned(text.replace(rule, without))
    }

    /// The earlier state, where the mistake uses that.
    #[derive(Debug)]
    pub(crate) struct PreviousState<T>(Option<T>);

    impl<T: Clone> PreviousState<T> {
        /// `first` is the state at the start.
        pub(crate) fn new(name: &'static str, first: &T) -> PreviousState<T> {
            PreviousState(on(name).then(|| first.clone()))
        }

        /// The state to use.
        pub(crate) fn instead_of(&mut self, known: T) -> T {
            match &mut self.0 {
                Some(before) => std::mem::replace(before, known),
                None => known,
            }
        }
    }
}

#[cfg(not(feature = "faults"))]
mod active {
    use std::borrow::Cow;
    use std::marker::PhantomData;

    pub(crate) const fn on(_name: &'static str) -> bool {
        false
    }

    pub(crate) const fn in_sql(text: &str) -> Cow<'_, str> {
        Cow::Borrowed(text)
    }

    #[derive(Debug)]
    pub(crate) struct PreviousState<T>(PhantomData<T>);

    impl<T> PreviousState<T> {
        pub(crate) const fn new(_name: &'static str, _first: &T) -> PreviousState<T> {
            PreviousState(PhantomData)
        }

        pub(crate) fn instead_of(&mut self, known: T) -> T {
            known
        }
    }
}
