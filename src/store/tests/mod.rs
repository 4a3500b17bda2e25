mod resp;
mod script;
mod topology;
