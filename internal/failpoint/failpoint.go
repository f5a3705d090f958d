// Package failpoint lets a test kill the process, or make it wait, at an exact step of a rotation.
//
// Guarantee: it is compiled only with the build tag failpoint. Without the tag its functions do nothing, and no
// environment variable is read. A test checks this for the shipped binary.
//
// With the tag, ROTATORD_FAILPOINTS arms points, separated by commas:
//
//	NAME=kill        send this process SIGKILL when the point is reached
//	NAME=sleep:2s    wait there
//	NAME=off         leave out the step with that name, for steps that call Off
//	NAME=bound:1s    shorten a time limit, for limits that call Bound
//	NAME=kill#3      only the third time that the point is reached
//
// A value that is not valid ends the process at the start, because a test that arms nothing would pass. Before a point
// strikes, its name is written to standard error.
//
// The points are PHASE.before and PHASE.after for each phase of a rotation, LEDGER STEP
// .before and .after as "ledger.sealed.before" for each write to the ledger, and
// so for what else is done on the way: "erase", "extend", "find" (a service token by its
// name) and "delete" (one that was replaced). "file.rename" is right before a file sink replaces its file.
package failpoint
