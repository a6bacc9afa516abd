package gst

/*
#include "native.h"
*/
import "C"

// TellCrashes has this process write to standard error where it crashed, when it does:
// the signal, the library, the thread (GStreamer names them by their elements) and the
// stack of C functions. Go alone tells nothing of a thread that isn't its own.
func TellCrashes() { C.tell_crashes() }
