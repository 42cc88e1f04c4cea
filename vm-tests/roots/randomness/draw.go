// Draws from the generators of Go: once at the start, and once more when the file appears.
package main

import (
	crypto "crypto/rand"
	"fmt"
	"math/rand"
	v2 "math/rand/v2"
	"os"
	"time"
)

func draw() string {
	bytes := make([]byte, 16)
	if _, err := crypto.Read(bytes); err != nil {
		panic(err)
	}
	return fmt.Sprintf("Go crypto/rand: %x\nGo math/rand: %x\nGo math/rand/v2: %x\n", bytes, rand.Uint64(), v2.Uint64())
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
