//! Renderings of a [`crate::report::Report`]: `fn(&Report, &Options, &mut dyn Write)`.
