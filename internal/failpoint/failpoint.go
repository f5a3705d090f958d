// Package failpoint lets a test end the process, or make it wait, at an exact step of a
// rotation.
//
// Guarantee: it is compiled in only with the build tag failpoint. Without it both
// functions are empty, no name of a point is acted on, and no environment variable is
// read; a test holds the shipped binary to that.
//
// With the tag, ROTATORD_FAILPOINTS arms points, separated by commas:
//
//	NAME=kill        send this process SIGKILL when the point is reached
//	NAME=sleep:2s    wait there
//	NAME=off         leave out the step of that name, for the few that ask Off
//	NAME=bound:1s    shorten a time limit, for the few that ask Bound
//	NAME=kill#3      only the third time that the point is reached
//
// An armed point that cannot be understood ends the process at start: a test that arms
// nothing would pass. Each point that strikes is named on standard error before it does.
//
// The points are PHASE.before and PHASE.after for each phase of a rotation, LEDGER STEP
// .before and .after as "ledger.sealed.before" for each write to the ledger, and
// so for what else is done on the way: "erase", "extend", "find" (a service token by its
// name) and "delete" (one that was replaced). "file.rename" is right before a file sink replaces its file.
package failpoint
