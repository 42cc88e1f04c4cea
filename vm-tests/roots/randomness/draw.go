// Draws from the generator of Go for secrets: once at the start, and once more when the file appears.
package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"time"
)

func draw() string {
	bytes := make([]byte, 16)
	if _, err := rand.Read(bytes); err != nil {
		panic(err)
	}
	return fmt.Sprintf("Go crypto/rand: %x\n", bytes)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func main() {
	out := os.Args[1]
	draw()
	for {
		if exists("/run/draw") && !exists(out) {
			if err := os.WriteFile(out+".new", []byte(draw()), 0o644); err != nil {
				panic(err)
			}
			if err := os.Rename(out+".new", out); err != nil {
				panic(err)
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}
