package main

// unitCredentials is where systemd puts the credentials of a unit while it runs, in a directory of
// the unit's name.
const unitCredentials = "/run/credentials"
