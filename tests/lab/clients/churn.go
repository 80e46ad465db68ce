// A Go program that asks a server for many things at a time, round after round.
// churn URL REQUESTS-A-ROUND MILLISECONDS-BETWEEN-ROUNDS; the advice, where there is one, replaces the marked line.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"
)

func main() {
	url := os.Args[1]
	batch, _ := strconv.Atoi(os.Args[2])
	pause, _ := strconv.Atoi(os.Args[3])
	client := http.DefaultClient // SNIPPET

	var lock sync.Mutex
	done, failed, kinds := 0, 0, map[string]int{}
	one := func() {
		response, err := client.Get(url)
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			response.Body.Close()
		}
		lock.Lock()
		defer lock.Unlock()
		switch {
		case err == nil:
			done++
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			failed++
			kinds["EADDRNOTAVAIL"]++
		default:
			failed++
			kinds[err.Error()]++
		}
	}
	for {
		var round sync.WaitGroup
		for i := 0; i < batch; i++ {
			round.Add(1)
			go func() {
				defer round.Done()
				one()
			}()
		}
		round.Wait()
		told, _ := json.Marshal(map[string]any{"done": done, "failed": failed, "errors": kinds})
		fmt.Println(string(told))
		time.Sleep(time.Duration(pause) * time.Millisecond)
	}
}
