// A server over TLS and without, and a client: crypto/tls is part of the program.
//
//	program serve PLAIN_PORT TLS_PORT CERTIFICATE KEY
//	program get URL...
package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func answer(w http.ResponseWriter, r *http.Request) {
	_, port, _ := net.SplitHostPort(r.RemoteAddr)
	fmt.Fprintf(w, "%s %s\n", r.URL.Path, port)
}

func main() {
	if os.Args[1] == "serve" {
		http.HandleFunc("/", answer)
		go func() { panic(http.ListenAndServe("127.0.0.1:"+os.Args[2], nil)) }()
		panic(http.ListenAndServeTLS("127.0.0.1:"+os.Args[3], os.Args[4], os.Args[5], nil))
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	for _, url := range os.Args[2:] {
		response, err := client.Get(url)
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		fmt.Print(string(body))
	}
}
