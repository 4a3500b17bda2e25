//! The door for the app.
