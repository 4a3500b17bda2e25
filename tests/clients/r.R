arguments <- commandArgs(trailingOnly = TRUE)
ask <- function(kind, url) {
  if (kind == "curl") {
    answer <- curl::curl_fetch_memory(url)
    return(paste(answer$status_code, rawToChar(answer$content)))
  }
  if (kind == "curl-cainfo") {
    answer <- curl::curl_fetch_memory(url, curl::new_handle(cainfo = Sys.getenv("CURL_CA_BUNDLE")))
    return(paste(answer$status_code, rawToChar(answer$content)))
  }
  file <- tempfile()
  download.file(url, file, quiet = TRUE)
  readLines(file, warn = FALSE)
}
for (cell in arguments[-1]) {
  at <- regexpr("=", cell)
  cat("==", substr(cell, 1, at - 1), "\n")
  cat(tryCatch(ask(arguments[1], substring(cell, at + 1)),
    warning = conditionMessage, error = conditionMessage), "\n")
}
