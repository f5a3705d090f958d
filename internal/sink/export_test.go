package sink

import "io/fs"

// BeforeCheck has f call do right before it reads the old file again.
func (f *File) BeforeCheck(do func()) { f.beforeCheck = do }

// Written has f call do after each write.
func (f *File) Written(do func()) { f.written = do }

// Stat has f look at directories with stat.
func (f *Files) Stat(stat func(path string) (fs.FileInfo, error)) { f.stat = stat }
