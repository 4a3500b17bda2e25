package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	for _, cell := range os.Args[1:] {
		name, url, _ := strings.Cut(cell, "=")
		fmt.Println("==", name)
		answer, err := http.Get(url)
		if err != nil {
			fmt.Println(err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		fmt.Println(answer.Status, string(body))
	}
}
