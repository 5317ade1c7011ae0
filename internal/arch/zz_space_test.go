package arch
import ("testing";"os";"os/exec";"fmt";"strings";"bufio";"strconv";"sort")
func TestSpaceX(t *testing.T){
 var cases [][]byte
 modrms:=[]byte{}
 for r:=0;r<8;r++{ modrms=append(modrms, byte(r<<3)|3, byte(r<<3)|0x80|4, byte(r<<3)|5, 0xc0|byte(r<<3), 0xc1|byte(r<<3)) }
 full:=[]byte{}; for i:=0;i<256;i++{full=append(full,byte(i))}
 pps:=[][]byte{{},{0x66},{0xf3},{0xf2}}
 add:=func(parts ...[]byte){ var c []byte; for _,p:=range parts{c=append(c,p...)}; cases=append(cases,c)}
 for op:=0;op<256;op++{ for ppi,pp:=range pps{
  for _,m:=range full { 
   if m!=0 && len(modrms)==0 {continue}
   add(pp,[]byte{byte(op),m}); add(pp,[]byte{0x48,byte(op),m}); add(pp,[]byte{0x0f,byte(op),m}); }
  for _,m:=range modrms { 
   add(pp,[]byte{0x48,0x0f,byte(op),m})
   add(pp,[]byte{0x0f,0x38,byte(op),m}); add(pp,[]byte{0x0f,0x3a,byte(op),m})
   for _,L:=range []byte{0,1}{ for _,w:=range []byte{0,1}{ for _,v:=range []byte{15,2}{
    for mm:=byte(0);mm<8;mm++{ add([]byte{0xc4,0xe0|mm,w<<7|v<<3|L<<2|byte(ppi),byte(op),m}) }
    }}}
   for L:=byte(0);L<3;L++{ for _,w:=range []byte{0,1}{ for _,v:=range []byte{15,2}{ for _,k:=range []byte{0,1}{
    for mm:=byte(0);mm<8;mm++{ if mm==4||mm==7 {continue}; add([]byte{0x62,0xf0|mm,w<<7|v<<3|4|byte(ppi),L<<5|8|k,byte(op),m}) }
   }}}}
  }}}
 blob:=make([]byte,0,len(cases)*32)
 for _,c:=range cases{ s:=append([]byte{},c...); for len(s)<32{ if len(s)<len(c)+1 {s=append(s,0x25)} else {s=append(s,0x90)}}; blob=append(blob,s...)}
 os.WriteFile("/tmp/k/w/blob.bin",blob,0644)
 os.WriteFile("/tmp/k/w/blob.s",[]byte(".text\n.incbin \"/tmp/k/w/blob.bin\"\n"),0644)
 if o,err:=exec.Command("as","-o","/tmp/k/w/blob.o","/tmp/k/w/blob.s").CombinedOutput();err!=nil{t.Fatal(string(o))}
 tool:=os.Getenv("TOOL")
 args:=[]string{"-d","-z","-w","/tmp/k/w/blob.o"}
 if tool=="llvm-objdump"{args=[]string{"-d","-z","--mcpu=sapphirerapids","--mattr=+fma4,+kl,+widekl,+sse4a,+avx512bf16,+avx512vp2intersect,+clzero,+mwaitx,+rdpru,+invpcid,+hreset,+avx512er,+avx512pf,+sgx","/tmp/k/w/blob.o"}}
 cmd:=exec.Command(tool,args...)
 out,_:=cmd.StdoutPipe(); cmd.Start()
 sc:=bufio.NewScanner(out)
 diff:=map[string]int{}; ex:=map[string]string{}; n:=0
 for sc.Scan(){
  l:=sc.Text(); i:=strings.IndexByte(l,':'); if i<0{continue}
  a,err:=strconv.ParseUint(strings.TrimSpace(l[:i]),16,64); if err!=nil||a%32!=0{continue}
  rest:=l[i+1:]; 
  var hexs,asm string
  if tool=="objdump"{ f:=strings.Split(rest,"\t"); if len(f)<3{continue}; hexs,asm=f[1],f[2]} else { j:=strings.IndexByte(rest,'\t'); if j<0{continue}; hexs,asm=rest[:j],rest[j+1:]}
  k:=len(strings.Fields(hexs))
  if strings.Contains(asm,"(bad)")||strings.Contains(asm,"<unknown>"){k=0}
  in,ok:=decodeX86(blob[a:a+32]); g:=in.Len; if !ok{g=0}
  n++
  if g!=k{ c:=cases[a/32]
   kind:="they refuse"; if g==0{kind="we refuse"} else if k!=0{kind=fmt.Sprintf("LEN %d/%d",g,k)}
   var key string
   switch { case c[0]==0xc4: key=fmt.Sprintf("vex%d pp%d %02x",c[1]&7,c[2]&3,c[3])
    case c[0]==0x62: key=fmt.Sprintf("evex%d pp%d %02x",c[1]&7,c[2]&3,c[4])
    default: key=fmt.Sprintf("% x",c[:len(c)-1]) }
   key=kind+" "+key; mod:=c[len(c)-1]
   mf:="mem"; if mod>=0xc0{mf="reg"}
   key+=" "+mf+fmt.Sprintf("/%d",mod>>3&7)
   diff[key]++; ex[key]=fmt.Sprintf("% x",blob[a:a+12])+" "+asm }
 }
 var ks []string; for k:=range diff{ks=append(ks,k)}; sort.Strings(ks)
 fmt.Println("compared",n,"of",len(cases))
 for _,k:=range ks{fmt.Printf("%s\tx%d\t%s\n",k,diff[k],ex[k])}
}
