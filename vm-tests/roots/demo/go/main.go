// An HTTP server with a counter in memory, built without cgo: one static executable.
package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
)

var count int64

func main() {
	token := make([]byte, 8)
	if _, err := rand.Read(token); err != nil {
		log.Fatal(err)
	}
	instance := hex.EncodeToString(token)

	show := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{
			"pid": os.Getpid(), "instance": instance, "count": atomic.LoadInt64(&count),
		})
	}
	http.HandleFunc("/state", func(w http.ResponseWriter, r *http.Request) { show(w) })
	http.HandleFunc("/bump", func(w http.ResponseWriter, r *http.Request) {
		by, err := strconv.ParseInt(r.FormValue("by"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		atomic.AddInt64(&count, by)
		show(w)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:8081", nil))
}
