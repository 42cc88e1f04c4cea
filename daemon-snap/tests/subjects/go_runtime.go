// A static Go program: goroutines on several threads, timers, a network listener, and memory that only the heap holds.
package main

import (
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

var directory string

func verdict(text string) {
	temporary := fmt.Sprintf("%s/.result-%d", directory, os.Getpid())
	os.WriteFile(temporary, []byte(text), 0o666)
	os.Rename(temporary, directory+"/result")
	if strings.HasPrefix(text, "pass") {
		os.Exit(0)
	}
	os.Exit(1)
}

func check(holds bool, format string, arguments ...any) {
	if !holds {
		verdict("fail: " + fmt.Sprintf(format, arguments...))
	}
}

// Answers each line with the number of lines so far.
func serve(listener net.Listener, lines *int64) {
	for {
		client, err := listener.Accept()
		if err != nil {
			check(false, "accept: %v", err)
		}
		go func() {
			defer client.Close()
			buffer := make([]byte, 16)
			if n, err := client.Read(buffer); err == nil && n > 0 {
				fmt.Fprintf(client, "%d", atomic.AddInt64(lines, 1))
			}
		}()
	}
}

func ask(address string) string {
	client, err := net.DialTimeout("tcp", address, 5*time.Second)
	check(err == nil, "dial: %v", err)
	defer client.Close()
	client.SetDeadline(time.Now().Add(5 * time.Second))
	client.Write([]byte("?"))
	answer, err := io.ReadAll(client)
	check(err == nil, "answer: %v", err)
	return string(answer)
}

func main() {
	directory = os.Args[1]
	if os.Getenv("SUBJECT_CLEAN") == "" {
		// nothing from whoever started us: close_range(2) with CLOSE_RANGE_CLOEXEC, and once more
		syscall.Syscall(436, 3, 1<<31, 4)
		syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "SUBJECT_CLEAN=1"))
	}
	syscall.Setsid()
	runtime.GOMAXPROCS(4)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err == nil, "listen: %v", err)
	var lines, ticks int64 = 41, 0
	go serve(listener, &lines)
	go func() {
		for range time.NewTicker(5 * time.Millisecond).C {
			atomic.AddInt64(&ticks, 1)
		}
	}()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGUSR1)
	blocks := make(map[int][]byte)
	for i := 0; i < 200; i++ {
		blocks[i] = make([]byte, 10000)
		for j := range blocks[i] {
			blocks[i][j] = byte(i * (j + 1))
		}
	}
	sum := func() (total uint32) {
		for i := 0; i < 200; i++ {
			total = total*31 + crc32.ChecksumIEEE(blocks[i])
		}
		return
	}
	results := make(chan int)
	release := make(chan struct{})
	for i := 0; i < 100; i++ {
		go func(i int) {
			<-release
			time.Sleep(time.Duration(i%10) * time.Millisecond)
			results <- i
		}(i)
	}
	before, pid, started := sum(), os.Getpid(), time.Now()
	check(ask(listener.Addr().String()) == "42", "first answer")
	os.WriteFile(directory+"/.ready", []byte("ready"), 0o666)
	os.Rename(directory+"/.ready", directory+"/ready")
	for {
		if _, err := os.Stat(directory + "/go"); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}

	check(os.Getpid() == pid, "pid is %d, was %d", os.Getpid(), pid)
	check(sum() == before, "memory differs")
	elapsed := time.Since(started)
	check(elapsed >= 0 && elapsed < time.Minute, "the monotonic clock went %v", elapsed)
	check(ask(listener.Addr().String()) == "43", "the listener's counter was lost")
	for was := atomic.LoadInt64(&ticks); atomic.LoadInt64(&ticks) < was+3; {
		check(time.Since(started) < elapsed+5*time.Second, "the ticker stands still")
		time.Sleep(time.Millisecond)
	}
	close(release)
	total := 0
	for i := 0; i < 100; i++ {
		select {
		case value := <-results:
			total += value
		case <-time.After(5 * time.Second):
			check(false, "only %d goroutines came back", i)
		}
	}
	check(total == 4950, "goroutines gave %d", total)
	syscall.Kill(pid, syscall.SIGUSR1)
	select {
	case <-signals:
	case <-time.After(5 * time.Second):
		check(false, "no signal came")
	}
	runtime.GC()
	check(sum() == before, "memory differs after a collection")
	verdict("pass")
}
