package certs

// ListDir is listDir, for a test that makes no 20,000 files.
var ListDir = listDir
